"""LatencySpec: how long a model may take, measured where its trials run."""

from __future__ import annotations

from typing import Literal

from .base import PositiveInt, Spec
from .bound import Bound

Latency = Literal["latency", "stem_latency"]
"""The names of the measured times: of the whole model, and of its stem alone."""


class LatencySpec(Spec):
    """What is measured before a trial trains, in milliseconds, and what is allowed.

    `model` bounds the metric `latency`, that of the whole model, and `stem` the metric `stem_latency`, that of its stem
    alone; both are medians of an inference of `batch` images on the device that trains. A trial outside the bounds is
    not trained: its status is "infeasible".
    """

    batch: PositiveInt = 1
    model: Bound | None = None
    stem: Bound | None = None
