"""The layers of T2T-ViT's stem (arXiv 2101.11986): soft split and token transformer.

A worked plug-in: two classes, named under the entry point group `stemlab.layers` (docs/layers.md). Torch is imported
in `build` alone, so that costs and checks of specs stay quick.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Literal

from ..spec import Counts, LayerSpec, Shape, ShapeError
from ..spec.base import Count, Pair, PositiveInt, pair

if TYPE_CHECKING:
    from torch import nn


class SoftSplit(LayerSpec):
    """Put each window of a map, overlapping others, into one token: torch's Unfold, kept as a map."""

    op: Literal["soft_split"] = "soft_split"
    kernel: Pair
    stride: Pair
    padding: Count = 0

    @cached_property
    def window(self) -> tuple[int, int, int, int]:
        """Kernel and stride, (height, width, height, width)."""
        return (*pair(self.kernel), *pair(self.stride))

    def describe(self) -> str:
        """Return the layer in a few words."""
        (kh, kw, sh, sw) = self.window
        return f"soft split {kh}x{kw} stride {sh}x{sw}"

    def output(self, shape: Shape, dim: int) -> Shape:
        """Return the shape with a window's pixels as channels; ShapeError where no window fits."""
        kh, kw, sh, sw = self.window
        height, width = ((size + 2 * self.padding) for size in shape[1:])
        if height < kh or width < kw:
            raise ShapeError(f"soft_split: a window of {kh}x{kw} does not fit a map of {shape.height}x{shape.width}")
        return Shape(shape.channels * kh * kw, (height - kh) // sh + 1, (width - kw) // sw + 1)

    def build(self, before: Shape, after: Shape, dim: int) -> nn.Module:
        """Return the module."""
        from .t2t_modules import SoftSplitModule

        return SoftSplitModule(self.window[:2], self.window[2:], self.padding)


class TokenTransformer(LayerSpec):
    """One transformer block over all positions of a map, narrowing it to `channels`; a single head, MLP ratio 1.

    The skip connection around the attention is from the values, since the input has another width.
    """

    op: Literal["token_transformer"] = "token_transformer"
    channels: PositiveInt = 64

    def reach(self, before: Shape, dim: int) -> tuple[int, int]:
        """Return the whole map: every position attends to every other."""
        return before.height, before.width

    def describe(self) -> str:
        """Return the layer in a few words."""
        return f"token transformer {self.channels}"

    def output(self, shape: Shape, dim: int) -> Shape:
        """Return the narrowed shape."""
        return shape._replace(channels=self.channels)

    def cost(self, before: Shape, after: Shape, dim: int) -> Counts:
        """Count qkv, both attention products, the projection and the MLP, as stemlab.costing does in a body."""
        wide, narrow, tokens = before.channels, self.channels, before.height * before.width
        linear = wide * 3 * narrow + 3 * narrow * narrow  # qkv, projection, two layers of MLP
        return Counts(
            flops=tokens * linear + 2 * tokens * tokens * narrow,
            bias_adds=tokens * 3 * narrow,
            params=linear + 3 * narrow + 2 * wide + 2 * narrow,  # and two layer norms
            activations=tokens * (3 * narrow + tokens + 4 * narrow),
        )

    def build(self, before: Shape, after: Shape, dim: int) -> nn.Module:
        """Return the module."""
        from .t2t_modules import TokenTransformerModule

        return TokenTransformerModule(before.channels, self.channels)
