"""Gain: an activation times a constant."""

from __future__ import annotations

import torch
from torch import nn


class Gain(nn.Module):
    """y = gain * act(x), as the activations of arXiv 2102.06171 that keep the variance.

    Shape: that of the activation.
    """

    def __init__(self, act: nn.Module, gain: float) -> None:
        super().__init__()
        self.act, self.gain = act, gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scaled activation."""
        scaled: torch.Tensor = self.act(x) * self.gain
        return scaled

    def extra_repr(self) -> str:
        """Show the gain."""
        return f"gain={self.gain}"
