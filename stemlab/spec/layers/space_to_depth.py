"""Space to depth."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Literal

from ..base import Pair, pair
from .base import LayerSpec, Shape, ShapeError, show_size

if TYPE_CHECKING:
    from torch import nn


class SpaceToDepthLayer(LayerSpec):
    """Move each block of pixels into the channels; nothing is learned and nothing lost.

    `order` says how the new channels are counted, slowest first: c the old channel, h and w the place in the block.
    "c h w" is torch's PixelUnshuffle, "h w c" TensorFlow's space_to_depth, "w h c" the patch merging of
    arXiv 2103.14030.
    """

    op: Literal["space_to_depth"] = "space_to_depth"
    block: Pair = 2
    order: Literal["c h w", "c w h", "h c w", "h w c", "w c h", "w h c"] = "c h w"

    @cached_property
    def window(self) -> tuple[int, int, int, int]:
        """Kernel and stride, (height, width, height, width)."""
        return (*pair(self.block), *pair(self.block))

    def describe(self) -> str:
        """Return the layer in a few words."""
        return f"space to depth {show_size(self.block)}, {self.order}"

    def output(self, shape: Shape, dim: int) -> Shape:
        """Return the smaller, deeper shape; ShapeError unless the block divides the map."""
        bh, bw = pair(self.block)
        if shape.height % bh or shape.width % bw:
            size = f"{shape.height}x{shape.width}"
            raise ShapeError(f"space_to_depth: a map of {size} is not divisible by block {show_size(self.block)}")
        return Shape(shape.channels * bh * bw, shape.height // bh, shape.width // bw)

    def build(self, before: Shape, after: Shape, dim: int) -> nn.Module:
        """Return the rearrangement."""
        from einops.layers.torch import Rearrange

        bh, bw = pair(self.block)
        return Rearrange(f"b c (y h) (x w) -> b ({self.order}) y x", h=bh, w=bw)
