"""The size of the gradients of stem and body, step by step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .layers import stem_and_body
from .numbers import finite
from .steps import StepProbe


def norm(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Return the L2 norm of tensors taken together, on their device; not a number for none."""
    if not tensors:
        return torch.tensor(torch.nan)
    norms = torch.stack([torch.linalg.vector_norm(t) for t in tensors])
    return torch.sqrt(norms.square().sum())


class GradientNorms(StepProbe):
    """L2 norms of the gradients of the stem and of the body, before clipping: mean and maximum over an epoch.

    The stem's gradient is where a training becomes unstable first (MoCo v3, arXiv 2104.02057: spikes in that of the
    patch projection).
    """

    def __init__(self, model: nn.Module) -> None:
        self.parts = stem_and_body(model)
        self.norms: dict[str, list[torch.Tensor]] = {name: [] for name in self.parts}
        self.largest: dict[str, float | None] = dict.fromkeys(self.parts)

    def before_step(self, loss: torch.Tensor) -> None:
        """Take the norms of this step's gradients."""
        for name, parameters in self.parts.items():
            self.norms[name].append(norm([p.grad for p in parameters if p.grad is not None]))

    def columns(self) -> dict[str, float | None]:
        """Return stem_grad, stem_grad_max, body_grad and body_grad_max."""
        row: dict[str, float | None] = {}
        for name, norms in self.norms.items():
            steps = torch.stack(norms)
            row |= {f"{name}_grad": finite(steps.mean()), f"{name}_grad_max": finite(steps.max())}
            known = steps[steps.isfinite()]
            if len(known):
                self.largest[name] = max(self.largest[name] or 0.0, finite(known.max()) or 0.0)
            norms.clear()
        return row

    def summary(self) -> dict[str, Any]:
        """Return the largest norms of the run, of all the steps where they were finite."""
        return {f"{name}_grad_max": largest for name, largest in self.largest.items()}

    def state(self) -> dict[str, Any]:
        """Return the largest norms so far."""
        return {"largest": self.largest}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        self.largest = dict(state["largest"])
