"""How long a trial will take, from a few of its steps."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from ..builders import build_model
from ..data.load import load
from ..data.split import Part
from ..matching import match
from ..spec import TrialSpec
from . import recipe
from .measure import timed
from .run import Run, evaluate, update_size

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
        updates = train // update_size(trial.train, train)
        return self.build + trial.train.epochs * (updates * self.update + validation * self.image) + test * self.image


def pace(trial: TrialSpec, device: str | None = None) -> Pace:
    """Build the trial's model, train it for a few steps and return how long that took."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    data = load(trial.data, device, trial.train.augment)
    began = time.perf_counter()
    model = build_model(match(trial.model).model, seed=trial.seed, **recipe.options(trial.train)).to(device)
    built = time.perf_counter() - began
    enough = _STEPS * update_size(trial.train, len(data.train))
    run = Run(model, trial.train, trial.seed, First(data.train, enough))
    judged = First(data.validation, 512)
    timed(run.epoch, device)  # the first steps of a process are slow
    updates = timed(run.epoch, device) / run.steps
    images = timed(lambda: evaluate(model, judged, trial.train), device) / len(judged)
    return Pace(built, updates, images)


class First:
    """The first images of a part."""

    def __init__(self, part: Part, most: int) -> None:
        self.device, self.batches, self._count = part.device, part.batches, min(most, len(part))

    def __len__(self) -> int:
        return self._count
