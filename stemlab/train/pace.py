"""How long a trial will take, from a few of its steps."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from ..builders import build_model
from ..data.digits import load_digits
from ..data.split import Part
from ..matching import match
from ..spec import TrialSpec
from .run import Run, evaluate

_STEPS = 6


@dataclass(frozen=True)
class Pace:
    """Seconds to build a model, for one update, and to judge one image."""

    build: float
    update: float
    image: float

    def seconds(self, trial: TrialSpec) -> float:
        """Return how long a trial of this model, batch size and optimizer takes."""
        train, validation, test = trial.data.part_sizes
        updates = max(1, train // trial.train.batch_size)
        return self.build + trial.train.epochs * (updates * self.update + validation * self.image) + test * self.image


def pace(trial: TrialSpec, device: str | None = None) -> Pace:
    """Build the trial's model, train it for a few steps and return how long that took."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    data = load_digits(trial.data, device)
    began = time.perf_counter()
    model = build_model(match(trial.model).model, seed=trial.seed).to(device)
    built = time.perf_counter() - began
    run = Run(model, trial.train, trial.seed, _first(data.train, _STEPS * trial.train.batch_size), None)
    judged = _first(data.validation, 512)
    _timed(run.epoch, device)  # the first steps of a process are slow
    updates = _timed(run.epoch, device) / run.steps
    images = _timed(lambda: evaluate(model, judged, trial.train), device) / len(judged)
    return Pace(built, updates, images)


def _first(part: Part, images: int) -> Part:
    return Part(part.images[:images], part.labels[:images])


def _timed(work: object, device: str) -> float:
    began = time.perf_counter()
    work()  # type: ignore[operator]
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
