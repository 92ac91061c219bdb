"""Pooling."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from ..base import Flag, Pair, given, pair, relation_error
from .base import LayerSpec, Shape, not_empty, show_size
from .padding import Padding, padded_size, sides_of, with_explicit_padding

if TYPE_CHECKING:
    from torch import nn


class PoolLayer(LayerSpec):
    """Max or average pooling over a window, or `global`: the average of the whole map.

    `stride` is the kernel unless given. `count_include_pad` says whether an average counts the padding as zeros.
    """

    op: Literal["pool"] = "pool"
    kind: Literal["max", "avg", "global"]
    kernel: Pair | None = None
    stride: Pair | None = None
    padding: Padding | None = None
    ceil: Flag | None = None
    count_include_pad: Flag | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = given(data)
        if data.get("kind") == "global":
            for name in ("kernel", "stride", "padding", "ceil", "count_include_pad"):
                if name in data:
                    raise relation_error(f"{name} has no meaning for kind: global, which takes the whole map", (name,))
            return data
        if "kernel" not in data:
            if data.get("kind") in ("max", "avg"):
                raise relation_error("missing field 'kernel'")
            return data
        if data.get("kind") == "max" and "count_include_pad" in data:
            raise relation_error("count_include_pad belongs to average pooling", at=("count_include_pad",))
        own = {"count_include_pad": True} if data.get("kind") == "avg" else {}
        filled = {"stride": data["kernel"], "padding": 0, "ceil": False, **own, **data}
        return with_explicit_padding(filled)

    @model_validator(mode="after")
    def _padding_fits(self) -> PoolLayer:
        if self.kernel is None:
            return self
        assert self.padding is not None
        sides = sides_of(self.padding)
        if self.ceil and (sides is None or not _even(sides)):
            raise relation_error("ceil goes with equal padding on opposite sides only", at=("ceil",))
        if sides is not None:
            kh, kw = pair(self.kernel)
            for p, k in zip(sides, (kw, kw, kh, kh), strict=True):
                if p > k // 2:
                    raise relation_error(f"padding (={p}) must be at most half the kernel (={k})", at=("padding",))
        return self

    @cached_property
    def window(self) -> tuple[int, int, int, int]:
        """Kernel and stride, (height, width, height, width)."""
        if self.kernel is None or self.stride is None:
            return (1, 1, 1, 1)
        return (*pair(self.kernel), *pair(self.stride))

    def reach(self, before: Shape, dim: int) -> tuple[int, int]:
        """Return the window; for `global` the whole map."""
        return (before.height, before.width) if self.kind == "global" else self.window[:2]

    def describe(self) -> str:
        """Return the layer in a few words."""
        if self.kernel is None or self.stride is None:
            return "global pool"
        return f"{self.kind} pool {show_size(self.kernel)} stride {show_size(self.stride)}"

    def output(self, shape: Shape, dim: int) -> Shape:
        """Return the shape of the result; ShapeError where nothing is left."""
        if self.kernel is None or self.padding is None:
            return Shape(shape.channels, 1, 1)
        sides = sides_of(self.padding)
        height, width = padded_size(shape[1:], self.window, sides)
        if self.ceil and sides:
            kh, kw, sh, sw = self.window
            height, width = _ceiled(shape.height, kh, sh, sides[2]), _ceiled(shape.width, kw, sw, sides[0])
        return not_empty("pool", Shape(shape.channels, height, width), shape, self.kernel)

    def build(self, before: Shape, after: Shape, dim: int) -> nn.Module:
        """Return torch's pool, or ours where it is padded unequally."""
        from torch import nn

        from ...modules.pool import PaddedPool

        if self.kind == "global":
            return nn.AdaptiveAvgPool2d(1)
        assert self.padding is not None
        kernel, stride, sides = self.window[:2], self.window[2:], sides_of(self.padding)
        if sides is None or not _even(sides):
            return PaddedPool(self.kind, kernel, stride, sides, self.count_include_pad is not False)
        padding = (sides[2], sides[0])
        if self.kind == "max":
            return nn.MaxPool2d(kernel, stride, padding, ceil_mode=bool(self.ceil))
        return nn.AvgPool2d(
            kernel, stride, padding, ceil_mode=bool(self.ceil), count_include_pad=bool(self.count_include_pad)
        )


def _even(sides: tuple[int, int, int, int]) -> bool:
    return sides[0] == sides[1] and sides[2] == sides[3]


def _ceiled(size: int, kernel: int, stride: int, padding: int) -> int:
    result = -(-(size + 2 * padding - kernel) // stride) + 1
    # As torch: a window may start in the input or its left padding, never beyond.
    return result - 1 if (result - 1) * stride >= size + padding else result
