"""PaddedPool: pooling with padding that torch's own pools do not have."""

from __future__ import annotations

from typing import Literal

import torch
from timm.layers import pad_same
from torch import nn
from torch.nn import functional as F


class PaddedPool(nn.Module):
    """Max or average pooling padded unequally, or as TensorFlow's SAME does, by the size of the input.

    `sides` is (left, right, top, bottom), or None for SAME. Padding never wins a maximum; in an average it counts
    as zeros, or not at all where `count_include_pad` is false.

    Shape: (batch, channels, height, width) -> (batch, channels, height', width').
    """

    def __init__(
        self,
        kind: Literal["max", "avg"],
        kernel: tuple[int, int],
        stride: tuple[int, int],
        sides: tuple[int, int, int, int] | None,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.kind, self.kernel, self.stride, self.sides = kind, kernel, stride, sides
        self.count_include_pad = count_include_pad

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the pooled map."""
        if self.kind == "max":
            return F.max_pool2d(self._pad(x, float("-inf")), self.kernel, self.stride)
        pooled = F.avg_pool2d(self._pad(x, 0.0), self.kernel, self.stride)
        if self.count_include_pad:
            return pooled
        inside = torch.ones_like(x[:1, :1])
        return pooled / F.avg_pool2d(self._pad(inside, 0.0), self.kernel, self.stride)

    def _pad(self, x: torch.Tensor, value: float) -> torch.Tensor:
        if self.sides is None:
            padded: torch.Tensor = pad_same(x, list(self.kernel), list(self.stride), value=value)
            return padded
        return F.pad(x, self.sides, value=value)

    def extra_repr(self) -> str:
        """Show the kind, window and padding."""
        return f"{self.kind}, {self.kernel}, {self.stride}, sides={self.sides or 'same'}"
