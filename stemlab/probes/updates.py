"""How far a step moves the weights, relative to their size."""

from __future__ import annotations

import torch
from torch import nn

from .gradients import norm
from .layers import stem_and_body
from .numbers import finite
from .steps import StepProbe

EVERY = 8
"""One step of so many is measured, the first of an epoch among them: the weights have to be copied for it."""


class UpdateRatios(StepProbe):
    """The norm of a step's change of the weights over the norm of the weights: the mean over an epoch's sampled steps.

    Of the stem, and of the body. The usual rule of thumb is about 1e-3 (CS231n, "Ratio of weights:updates"); it tells
    whether one learning rate suits both. Weight decay and clipping are in it.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parts = stem_and_body(model)
        self.ratios: dict[str, list[torch.Tensor]] = {name: [] for name in self.parts}
        self.before: dict[str, list[torch.Tensor]] = {}
        self.step = 0

    def before_step(self, loss: torch.Tensor) -> None:
        """Copy the weights, if this step is measured."""
        if self.step % EVERY == 0:
            self.before = {name: [p.detach().clone() for p in part] for name, part in self.parts.items()}
        self.step += 1

    @torch.no_grad()
    def after_step(self) -> None:
        """Compare the weights with their copy."""
        for name, old in self.before.items():
            change = norm([p.detach() - w for p, w in zip(self.parts[name], old, strict=True)])
            self.ratios[name].append(change / norm(old))
        self.before = {}

    def columns(self) -> dict[str, float | None]:
        """Return stem_update and body_update."""
        row = {f"{name}_update": finite(torch.stack(ratios).mean()) for name, ratios in self.ratios.items()}
        self.step = 0
        for ratios in self.ratios.values():
            ratios.clear()
        return row
