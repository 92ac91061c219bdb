"""Pooling."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import PlainValidator, WithJsonSchema, model_validator

from ..base import PLAIN, Flag, Pair, given, pair, parse_pair, relation_error
from .base import LayerSpec, Shape, not_empty, show_size


def _parse_pool_padding(value: Any) -> int | tuple[int, int]:
    return parse_pair(value, least=0)


_POOL_PADDING_SCHEMA = WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "array"}]})


class PoolLayer(LayerSpec):
    """Max or average pooling. `stride` is the kernel unless given."""

    op: Literal["pool"] = "pool"
    kind: Literal["max", "avg"]
    kernel: Pair
    stride: Pair = 1
    padding: Annotated[int | tuple[int, int], PlainValidator(_parse_pool_padding), PLAIN, _POOL_PADDING_SCHEMA] = 0
    ceil: Flag = False
    count_include_pad: Flag | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        if isinstance(data, dict):
            if data.get("stride") is None and "kernel" in data:
                data = {**data, "stride": data["kernel"]}
            if data.get("kind") == "avg":
                data = {"count_include_pad": True, **given(data)}
            elif data.get("kind") == "max" and data.get("count_include_pad") is not None:
                raise relation_error("count_include_pad belongs to average pooling", at=("count_include_pad",))
        return data

    @model_validator(mode="after")
    def _padding_fits(self) -> PoolLayer:
        for k, p in zip(pair(self.kernel), pair(self.padding), strict=True):
            if p > k // 2:
                raise relation_error(f"padding (={p}) must be at most half the kernel (={k})", at=("padding",))
        return self

    @cached_property
    def window(self) -> tuple[int, int, int, int]:
        """Kernel and stride, (height, width, height, width)."""
        return (*pair(self.kernel), *pair(self.stride))

    def describe(self) -> str:
        """Return the layer in a few words."""
        return f"{self.kind} pool {show_size(self.kernel)} stride {show_size(self.stride)}"

    def output(self, shape: Shape, dim: int) -> Shape:
        """Return the shape of the result; ShapeError where nothing is left."""
        kh, kw, sh, sw = self.window
        ph, pw = pair(self.padding)
        height, width = self._size(shape.height, kh, sh, ph), self._size(shape.width, kw, sw, pw)
        return not_empty("pool", Shape(shape.channels, height, width), shape, self.kernel)

    def _size(self, size: int, kernel: int, stride: int, padding: int) -> int:
        room = size + 2 * padding - kernel
        if not self.ceil:
            return room // stride + 1
        result = -(-room // stride) + 1
        # As torch: a window may start in the input or its left padding, never beyond.
        return result - 1 if (result - 1) * stride >= size + padding else result
