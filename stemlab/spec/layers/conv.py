"""Convolution."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, PlainValidator, WithJsonSchema, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from ...errors import nearest, short
from ..base import LARGEST, Flag, Number, Pair, Spec, given, pair, relation_error, spec_error
from .act import Act, ActLayer
from .base import Channels, Counts, LayerSpec, Shape, ShapeError, channels_on, linear_counts, not_empty, show_size
from .norm import Norm, NormLayer
from .padding import Padding, padded_size, sides_of, with_explicit_padding

if TYPE_CHECKING:
    from torch import nn


Order = Literal["conv-norm-act", "conv-act-norm"]


class Standardize(Spec):
    """Weight standardisation (arXiv 1903.10520): each filter has zero mean and unit variance.

    With `gain`, a learned scale a channel times gamma / sqrt(fan_in), as in arXiv 2101.08692.
    """

    eps: Annotated[Number, Field(gt=0)] = 1e-6
    gain: Flag = False
    gamma: Annotated[Number, Field(gt=0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        if isinstance(data, dict):
            data = given(data)
            if data.get("gain") is True:
                data = {"gamma": 1.0, **data}
            elif "gamma" in data:
                raise relation_error("gamma scales the gain; it needs gain: true", at=("gamma",))
        return data


def _parse_standardize(value: Any) -> Any:
    if isinstance(value, bool):
        return {} if value else None
    if value is not None and not isinstance(value, (dict, Standardize)):
        raise spec_error(f"expected true, false or a mapping with eps and gain, got {short(value)}")
    return value


def _parse_groups(value: Any) -> int | str:
    if value == "depthwise" or (type(value) is int and 0 < value <= LARGEST):
        return value  # type: ignore[no-any-return]
    raise spec_error(
        f"expected a positive whole number or 'depthwise', got {short(value)}{nearest(value, ['depthwise'])}"
    )


class _OrFlagSchema:
    """The JSON Schema of what may also be switched on by true, off by false."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "boolean"}, handler(schema)]}


_GROUPS_SCHEMA = WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "depthwise"}]})


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
    groups: Annotated[int | Literal["depthwise"], PlainValidator(_parse_groups), _GROUPS_SCHEMA] = 1
    bias: Flag = False
    standardize: Annotated[Standardize | None, BeforeValidator(_parse_standardize), _OrFlagSchema()] = None
    norm: Norm = None
    act: Act = None
    order: Order | None = None

    _explicit_padding = model_validator(mode="before")(with_explicit_padding)

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

    def _filter(self, channels: int) -> int:
        """Return how many weights make one channel of the output."""
        kh, kw = pair(self.kernel)
        return kh * kw * (channels // self.group_count(channels))

    def describe(self) -> str:
        """Return the layer in a few words."""
        extras = [
            "depthwise" if self.groups == "depthwise" else f"{self.groups} groups" if self.groups != 1 else "",
            f"dilation {show_size(self.dilation)}" if self.dilation != 1 else "",
            "weights standardised" if self.standardize else "",
            "bias" if self.bias else "",
        ]
        stride = f" stride {show_size(self.stride)}" if self.stride != 1 else ""
        return ", ".join([f"conv {show_size(self.kernel)}{stride}", *filter(None, extras)])

    def output(self, shape: Shape, dim: int) -> Shape:
        """Return the shape of the result; ShapeError where there is none."""
        channels = channels_on(self.channels, dim)
        groups = self.group_count(shape.channels)
        for side, count in (("in", shape.channels), ("out", channels)):
            if count % groups:
                raise ShapeError(f"conv: {side}_channels (={count}) must be divisible by groups (={groups})")
        if self.standardize and self._filter(shape.channels) == 1:
            raise ShapeError("conv: a filter of one weight has no deviation to divide by; leave out standardize")
        height, width = padded_size(shape[1:], self.window, sides_of(self.padding))
        return not_empty("conv", Shape(channels, height, width), shape, self.kernel)

    def cost(self, before: Shape, after: Shape, dim: int) -> Counts:
        """Multiply-adds of the convolution; padding zeros count, as in every counter of the field."""
        counts = linear_counts(self._filter(before.channels) * after.channels, after, self.bias)
        gains = after.channels if self.standardize and self.standardize.gain else 0
        return counts._replace(params=counts.params + gains)

    def build(self, before: Shape, after: Shape, dim: int) -> nn.Module:
        """Return torch's convolution, or timm's where it is standardised or padded as TensorFlow does."""
        from timm.layers import Conv2dSame, ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
        from torch import nn

        sides = sides_of(self.padding)
        left, right, top, bottom = sides or (0, 0, 0, 0)
        even = left == right and top == bottom
        fields: dict[str, Any] = {
            "kernel_size": pair(self.kernel),
            "stride": pair(self.stride),
            "dilation": pair(self.dilation),
            "groups": self.group_count(before.channels),
            "bias": self.bias,
        }
        kind: type[nn.Module] = nn.Conv2d if sides else Conv2dSame
        if self.standardize:
            fields["eps"] = self.standardize.eps
            kind = StdConv2d if sides else StdConv2dSame
            if self.standardize.gain:
                fields["gamma"] = self.standardize.gamma
                kind = ScaledStdConv2d if sides else ScaledStdConv2dSame
        if sides:
            fields["padding"] = (top, left) if even else 0
        conv = kind(before.channels, after.channels, **fields)
        return conv if even else nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), conv)

    def init(self, module: nn.Module, behind: str) -> None:
        """Initialise by the rules of stemlab.modules.init."""
        from ...modules.init import init_convs

        init_convs(module, behind)  # type: ignore[arg-type]
