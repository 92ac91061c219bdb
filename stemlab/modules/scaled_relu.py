"""ScaledReLU: what batch norm adds to a ReLU, without the batch statistics."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import nn


class ScaledReLU(nn.Module):
    """y = relu(scale * x + shift), one scale and shift a channel; learned, or constants where `learn` is false.

    In the stem of arXiv 2109.03810 the rescaling is a batch norm's; this layer keeps its scale and shift only.

    Shape: (batch, channels, height, width) -> the same.
    """

    def __init__(self, channels: int, scale: float = 1.0, shift: float = 0.0, learn: bool = True) -> None:
        super().__init__()
        self.initial = (scale, shift)
        if learn:
            self.scale = nn.Parameter(torch.full((channels,), scale))
            self.shift = nn.Parameter(torch.full((channels,), shift))
        else:
            self.register_buffer("scale", torch.full((channels,), scale))
            self.register_buffer("shift", torch.full((channels,), shift))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the rescaled, rectified map."""
        scale, shift = (rearrange(v, "c -> c 1 1") for v in (self.scale, self.shift))
        return torch.relu(x * scale + shift)

    def extra_repr(self) -> str:
        """Show the width and the initial scale and shift."""
        return f"{self.scale.numel()}, scale={self.initial[0]}, shift={self.initial[1]}"
