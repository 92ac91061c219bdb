"""Patchify."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Literal

from ..base import Flag, Pair, pair
from .base import Channels, Counts, LayerSpec, Shape, ShapeError, channels_on, linear_counts, show_size

if TYPE_CHECKING:
    from torch import nn


class PatchifyLayer(LayerSpec):
    """The patchify stem (arXiv 2010.11929): cut the image into patches and project each to `channels`."""

    op: Literal["patchify"] = "patchify"
    patch: Pair
    channels: Channels = "dim"
    bias: Flag = True

    @cached_property
    def window(self) -> tuple[int, int, int, int]:
        """Kernel and stride, (height, width, height, width)."""
        return (*pair(self.patch), *pair(self.patch))

    def describe(self) -> str:
        """Return the layer in a few words."""
        return f"patchify {show_size(self.patch)}" + (", bias" if self.bias else "")

    def output(self, shape: Shape, dim: int) -> Shape:
        """Return the grid of patches; ShapeError unless the patch divides the map."""
        ph, pw = pair(self.patch)
        if shape.height % ph or shape.width % pw:
            raise ShapeError(f"patchify: a map of {shape.height}x{shape.width} is not divisible by patch {self.patch}")
        return Shape(channels_on(self.channels, dim), shape.height // ph, shape.width // pw)

    def cost(self, before: Shape, after: Shape, dim: int) -> Counts:
        """One linear layer on each patch."""
        ph, pw = pair(self.patch)
        return linear_counts(ph * pw * before.channels * after.channels, after, self.bias)

    def build(self, before: Shape, after: Shape, dim: int) -> nn.Module:
        """Return the Patchify module, initialised as in arXiv 2106.14881."""
        from ...modules.patchify import Patchify

        return Patchify(before.channels, after.channels, pair(self.patch), self.bias)
