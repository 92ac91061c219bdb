"""Convolution."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import PlainValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from ...errors import short
from ..base import LARGEST, PLAIN, Flag, Pair, PositiveInt, pair, parse_pair, spec_error
from .act import Act, ActLayer
from .base import Channels, Counts, LayerSpec, Shape, ShapeError, linear_counts, not_empty, show_size
from .norm import Norm, NormLayer


def _parse_padding(value: Any) -> int | tuple[int, ...] | str:
    if value in ("same", "tf_same") or (type(value) is int and 0 <= value <= LARGEST):
        return value  # type: ignore[no-any-return]
    if (
        isinstance(value, (list, tuple))
        and len(value) == 4
        and all(type(v) is int and 0 <= v <= LARGEST for v in value)
    ):
        return value[0] if len(set(value)) == 1 else tuple(value)
    raise spec_error(
        f"expected a whole number, [left, right, top, bottom], 'same' or 'tf_same' (TensorFlow's), got {short(value)}"
    )


Padding = Annotated[
    int | tuple[int, int, int, int] | Literal["same", "tf_same"],
    PlainValidator(_parse_padding),
    PLAIN,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 4, "maxItems": 4},
                {"enum": ["same", "tf_same"]},
            ]
        }
    ),
]
"""Zeros around the map: one number, [left, right, top, bottom], "same" (half the kernel) or "tf_same"."""

Order = Literal["conv-norm-act", "conv-act-norm"]


class ConvLayer(LayerSpec):
    """Convolution, with an optional norm and activation behind it.

    A stem keeps the three apart: `then()` gives the norm and the activation in their order, and a StemSpec's
    layer list holds a convolution without them, so that the same network has the same canonical form.
    """

    op: Literal["conv"] = "conv"
    channels: Channels
    kernel: Pair
    stride: Pair = 1
    padding: Padding = "same"
    dilation: Pair = 1
    groups: PositiveInt | Literal["depthwise"] = 1
    bias: Flag = False
    norm: Norm = None
    act: Act = None
    order: Order | None = None

    @model_validator(mode="before")
    @classmethod
    def _explicit_padding(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("padding", "same") == "same":
            try:
                kernel, dilation = (pair(parse_pair(data.get(name, 1))) for name in ("kernel", "dilation"))
            except PydanticCustomError:
                return data  # the field's own validator says what is wrong with it
            (kh, kw), (dh, dw) = kernel, dilation
            ph, pw = dh * (kh - 1), dw * (kw - 1)
            sides = (pw // 2, pw - pw // 2, ph // 2, ph - ph // 2)
            data = {**data, "padding": sides}
        return data

    def then(self) -> tuple[NormLayer | ActLayer, ...]:
        """Return the norm and the activation behind the convolution, in the order asked for."""
        pieces = (self.act, self.norm) if self.order == "conv-act-norm" else (self.norm, self.act)
        return tuple(piece for piece in pieces if piece is not None)

    def alone(self) -> ConvLayer:
        """Return the convolution without norm and activation."""
        if self.norm is None and self.act is None and self.order is None:
            return self
        return self.model_copy(update={"norm": None, "act": None, "order": None})

    @cached_property
    def window(self) -> tuple[int, int, int, int]:
        """Kernel (dilation included) and stride, (height, width, height, width)."""
        (kh, kw), (dh, dw) = pair(self.kernel), pair(self.dilation)
        return (dh * (kh - 1) + 1, dw * (kw - 1) + 1, *pair(self.stride))

    def group_count(self, channels: int) -> int:
        """Return the number of groups for an input of that many channels."""
        return channels if self.groups == "depthwise" else self.groups

    def describe(self) -> str:
        """Return the layer in a few words."""
        extras = [
            "depthwise" if self.groups == "depthwise" else f"{self.groups} groups" if self.groups != 1 else "",
            f"dilation {show_size(self.dilation)}" if self.dilation != 1 else "",
            "bias" if self.bias else "",
        ]
        stride = f" stride {show_size(self.stride)}" if self.stride != 1 else ""
        return ", ".join([f"conv {show_size(self.kernel)}{stride}", *filter(None, extras)])

    def output(self, shape: Shape, dim: int) -> Shape:
        """Return the shape of the result on a body of width `dim`; ShapeError where there is none."""
        channels = dim if self.channels == "dim" else self.channels
        groups = self.group_count(shape.channels)
        for side, count in (("in", shape.channels), ("out", channels)):
            if count % groups:
                raise ShapeError(f"conv: {side}_channels (={count}) must be divisible by groups (={groups})")
        kh, kw, sh, sw = self.window
        if self.padding == "tf_same":
            return Shape(channels, -(-shape.height // sh), -(-shape.width // sw))
        left, right, top, bottom = self.sides()
        height = (shape.height + top + bottom - kh) // sh + 1
        width = (shape.width + left + right - kw) // sw + 1
        return not_empty("conv", Shape(channels, height, width), shape, self.kernel)

    def sides(self) -> tuple[int, int, int, int]:
        """Return the padding as (left, right, top, bottom); not for "tf_same", which depends on the input."""
        if isinstance(self.padding, int):
            return (self.padding,) * 4
        assert isinstance(self.padding, tuple)
        return self.padding

    def cost(self, before: Shape, after: Shape) -> Counts:
        """Multiply-adds of the convolution; padding zeros count, as in every counter of the field."""
        kh, kw = pair(self.kernel)
        weights = kh * kw * (before.channels // self.group_count(before.channels)) * after.channels
        return linear_counts(weights, after, self.bias)
