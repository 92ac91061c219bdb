"""TrialSpec: one run, completely; Order: what a runner is asked to do with it."""

from __future__ import annotations

from typing import Literal

from .base import Number, PositiveInt, Seed, Spec
from .data import DataSpec
from .latency import LatencySpec
from .model import ModelSpec
from .probes import Probes
from .training import TrainSpec

Metric = Literal["top1", "top1_error", "loss"]
"""What a search may seek, measured on the validation part."""


class TrialSpec(Spec):
    """One run, completely: model, data, recipe, seed, probes and latencies. Its digest is the trial's identity."""

    model: ModelSpec
    data: DataSpec
    train: TrainSpec
    seed: Seed
    probes: Probes = None
    latency: LatencySpec | None = None


class Floor(Spec):
    """What a trial must reach to be trained on: the worst allowed value of a metric after each epoch, null for any.

    The best value that the trial has had so far counts. `sign` is 1 where larger is better, else -1.
    """

    metric: Metric
    sign: Literal[1, -1]
    values: tuple[Number | None, ...]


class Order(Spec):
    """A trial to run, and when to stop it: behind epoch `until` of its recipe, or once it falls below the `floor`.

    A trial stopped at `until` keeps its state where it ran, and goes on from there when it is ordered again; where
    there is no state it begins anew, and comes to the same numbers.
    """

    trial: TrialSpec
    until: PositiveInt | None = None
    floor: Floor | None = None
