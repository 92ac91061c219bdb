"""Parallel: branches beside each other, merged."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

Merge = Literal["sum", "concat", "mul"]


class Parallel(nn.Module):
    """Apply branches to the same map, or each to its own part of the channels, and merge what comes out.

    A branch of no layers is the identity. `parts` are the channels that each branch takes; None gives all of them to
    every branch. Sums and products broadcast over axes of length one, as a squeeze-and-excite gate needs.

    Shape: (batch, channels, height, width) -> (batch, channels', height', width'), as the branches give.
    """

    def __init__(self, branches: Sequence[nn.Module], merge: Merge, parts: Sequence[int] | None = None) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.merge = merge
        self.parts = None if parts is None else list(parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the merged map."""
        inputs = [x] * len(self.branches) if self.parts is None else torch.split(x, self.parts, dim=1)
        outputs = [branch(part) for branch, part in zip(self.branches, inputs, strict=True)]
        if self.merge == "concat":
            return torch.cat(outputs, dim=1)
        merged: torch.Tensor = functools.reduce(torch.add if self.merge == "sum" else torch.mul, outputs)
        return merged

    def extra_repr(self) -> str:
        """Show the merge and the split."""
        return self.merge + (f", parts={self.parts}" if self.parts else "")
