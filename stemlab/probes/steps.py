"""What the probes of single steps have in common."""

from __future__ import annotations

from typing import Any

import torch


class StepProbe:
    """Watches the steps of a training; an epoch ends with a few columns of the curve, the run with a summary.

    Nothing here may wait for the device within an epoch: numbers stay tensors until `columns`.
    """

    def before_step(self, loss: torch.Tensor) -> None:
        """See the loss of a step, and gradients before they are clipped."""

    def after_step(self) -> None:
        """See the weights that the step has changed."""

    def columns(self) -> dict[str, float | None]:
        """Return the columns of the epoch that has ended, and begin the next."""
        return {}

    def summary(self) -> dict[str, Any]:
        """Return what the record keeps of the whole run."""
        return {}

    def state(self) -> dict[str, Any]:
        """Return, between two epochs, what `restore` needs to go on: a JSON document."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
