"""The layers a stem is made of. Each op keeps its fields, its shape rule and its cost rule side by side.

Counting conventions (those of the papers, arXiv 2106.14881): flops are multiply-adds of convolutions and linear
layers; an element of a biased output is one bias-add, kept apart; activations are the outputs of convolutions
and linear layers, not of norms, activations or pools.
"""

from __future__ import annotations

import functools
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from ..errors import nearest, one_of, short
from .base import (
    LARGEST,
    PLAIN,
    Flag,
    Number,
    Pair,
    PositiveInt,
    SignedNumber,
    Spec,
    given,
    pair,
    parse_pair,
    relation_error,
    spec_error,
)


class Shape(NamedTuple):
    """Channels, height and width of one feature map."""

    channels: int
    height: int
    width: int


class Counts(NamedTuple):
    """What one layer costs: multiply-adds, bias additions, parameters, activations (in elements)."""

    flops: int = 0
    bias_adds: int = 0
    params: int = 0
    activations: int = 0

    def plus(self, other: Counts) -> Counts:
        """Return the sum, field by field."""
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))


class ExpandedIndex(int):
    """The place of a layer in a canonical list, where norms and activations are layers of their own."""

    def written(self, layers: list[Any]) -> int:
        """Return the place in the list as written, where a convolution may carry its norm and activation."""
        end = 0
        for index, layer in enumerate(layers):
            carried = (layer.get(name) for name in ("norm", "act")) if isinstance(layer, dict) else ()
            end += 1 + sum(piece not in (None, "none") for piece in carried)
            if self < end:
                return index
        return len(layers) - 1


class ShapeError(ValueError):
    """A feature map that a layer cannot take."""


Channels = Annotated[
    int | Literal["dim"],
    PlainValidator(lambda value: _parse_channels(value)),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "dim"}]}),
]
"""A number of channels, or "dim": the width of the body the stem is put on."""

Padding = Annotated[
    int | tuple[int, int, int, int] | Literal["same", "tf_same"],
    PlainValidator(lambda value: _parse_padding(value)),
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


def _parse_channels(value: Any) -> int | str:
    if value == "dim" or (type(value) is int and 0 < value <= LARGEST):
        return value  # type: ignore[no-any-return]
    raise spec_error(
        f"expected a positive whole number of channels (at most {LARGEST}) or 'dim' (the body's width), "
        f"got {short(value)}"
    )


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


NORM_EPS = {"batch": 1e-5, "layer": 1e-6, "group": 1e-5, "instance": 1e-5, "rms": 1e-6}
NormKind = Literal["batch", "layer", "group", "instance", "rms"]
ActKind = Literal[
    "relu", "scaled_relu", "gelu", "gelu_tanh", "silu", "hardswish", "leaky_relu", "prelu", "relu6", "elu",
    "mish", "tanh", "sigmoid",
]  # fmt: skip


class NormLayer(Spec):
    """Normalisation. `layer` and `rms` work over the channels of each position."""

    op: Literal["norm"] = "norm"
    kind: NormKind
    eps: Annotated[Number, Field(gt=0)] = 1e-5
    groups: PositiveInt | None = None
    affine: Flag = True

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {"kind": data}
        if isinstance(data, dict):
            kind = data.get("kind")
            if "eps" not in data and kind in NORM_EPS:
                data = {**data, "eps": NORM_EPS[kind]}
            if kind == "group":
                data = {"groups": 32, **given(data)}
            elif data.get("groups") is not None and kind in NORM_EPS:
                raise relation_error(f"groups belongs to kind: group, not to {kind}", at=("groups",))
        return data

    @cached_property
    def window(self) -> tuple[int, int, int, int]:
        """Kernel and stride, (height, width, height, width)."""
        return (1, 1, 1, 1)

    def describe(self) -> str:
        """Return the layer in a few words."""
        groups = f" of {self.groups} groups" if self.groups else ""
        return f"{self.kind} norm{groups}" + ("" if self.affine else ", not affine")

    def output(self, shape: Shape, dim: int) -> Shape:
        """Return the shape of the result, the same as that of the input."""
        if self.kind == "instance" and shape.height * shape.width == 1:
            raise ShapeError("instance norm: a map of one position has no deviation to divide by")
        if self.groups and shape.channels % self.groups:
            raise ShapeError(f"group norm: {shape.channels} channels are not divisible by groups (={self.groups})")
        return shape

    def cost(self, before: Shape, after: Shape) -> Counts:
        """A scale and a shift per channel; no multiply-adds by the papers' convention."""
        weights = {"rms": 1}.get(self.kind, 2) if self.affine else 0
        return Counts(params=weights * after.channels)


class ActLayer(Spec):
    """Activation. `scaled_relu` is y = relu(scale * x + shift) per channel, without batch statistics.

    With batch norm before `relu` (the scaled ReLU of arXiv 2109.03810) it separates the two ingredients of
    BN + ReLU: the batch statistics, and the learned scale and shift.
    """

    op: Literal["act"] = "act"
    kind: ActKind
    scale: SignedNumber | None = None
    shift: SignedNumber | None = None
    learn: Flag | None = None
    negative_slope: SignedNumber | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {"kind": data}
        if isinstance(data, dict):
            own = {
                "scaled_relu": {"scale": 1.0, "shift": 0.0, "learn": True},
                "leaky_relu": {"negative_slope": 0.01},
                "prelu": {"negative_slope": 0.25},
            }.get(str(data.get("kind")), {})
            for name in ("scale", "shift", "learn", "negative_slope"):
                if data.get(name) is not None and name not in own:
                    raise relation_error(f"{name} is not a parameter of {data.get('kind')}", at=(name,))
            data = {**own, **given(data)}
        return data

    @cached_property
    def window(self) -> tuple[int, int, int, int]:
        """Kernel and stride, (height, width, height, width)."""
        return (1, 1, 1, 1)

    def describe(self) -> str:
        """Return the layer in a few words."""
        if self.kind == "scaled_relu":
            return f"scaled_relu, scale {self.scale:g}, shift {self.shift:g}, {'learned' if self.learn else 'fixed'}"
        return self.kind

    def output(self, shape: Shape, dim: int) -> Shape:
        """Return the shape of the result, the same as that of the input."""
        return shape

    def cost(self, before: Shape, after: Shape) -> Counts:
        """Learned parameters only: two a channel for a learning scaled ReLU, one for PReLU (arXiv 1502.01852)."""
        if self.kind == "prelu":
            return Counts(params=after.channels)
        return Counts(params=2 * after.channels if self.learn else 0)


_NORMS: tuple[str, ...] = get_args(NormKind)
_ACTS: tuple[str, ...] = get_args(ActKind)


def parse_norm(value: Any) -> NormLayer | None:
    """Return the norm that a name, a mapping or "none" stands for."""
    return _parse_kind(value, "norm", _NORMS, NormLayer)


def parse_act(value: Any) -> ActLayer | None:
    """Return the activation that a name, a mapping or "none" stands for."""
    return _parse_kind(value, "activation", _ACTS, ActLayer)


_L = TypeVar("_L", NormLayer, ActLayer)


def _parse_kind(value: Any, what: str, kinds: tuple[str, ...], model: type[_L]) -> _L | None:
    if value is None or value == "none":
        return None
    if isinstance(value, str) and value not in kinds:
        raise spec_error(f"unknown {what} {short(value)}; expected {one_of((*kinds, 'none'))}{nearest(value, kinds)}")
    if not isinstance(value, (str, dict, model)):
        article = "an" if what == "activation" else "a"
        raise spec_error(f"expected the name of {article} {what} or a mapping with its kind, got {short(value)}")
    return _named(model, value) if isinstance(value, str) else model.model_validate(value)


@functools.cache
def _named(model: type[_L], name: str) -> _L:
    return model.model_validate(name)


def _kind_schema(kinds: tuple[str, ...]) -> dict[str, Any]:
    return {"anyOf": [{"enum": [*kinds, "none", None]}, {"type": "object", "required": ["kind"]}]}


NORM_SCHEMA, ACT_SCHEMA = _kind_schema(_NORMS), _kind_schema(_ACTS)
Norm = Annotated[NormLayer | None, PlainValidator(parse_norm), WithJsonSchema(NORM_SCHEMA)]
Act = Annotated[ActLayer | None, PlainValidator(parse_act), WithJsonSchema(ACT_SCHEMA)]
Order = Literal["conv-norm-act", "conv-act-norm"]


class ConvLayer(Spec):
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
                kernel, dilation = _parse_pair_of(data, "kernel"), _parse_pair_of(data, "dilation")
            except KeyError:
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
        return _not_empty("conv", Shape(channels, height, width), shape, self.kernel)

    def sides(self) -> tuple[int, int, int, int]:
        """Return the padding as (left, right, top, bottom); not for "tf_same", which depends on the input."""
        if isinstance(self.padding, int):
            return (self.padding,) * 4
        assert isinstance(self.padding, tuple)
        return self.padding

    def cost(self, before: Shape, after: Shape) -> Counts:
        """Multiply-adds of the convolution; padding zeros count, as in every counter of the field."""
        kh, kw = pair(self.kernel)
        positions = after.height * after.width
        weights = kh * kw * (before.channels // self.group_count(before.channels)) * after.channels
        outputs = positions * after.channels
        return Counts(
            flops=weights * positions,
            bias_adds=outputs if self.bias else 0,
            params=weights + (after.channels if self.bias else 0),
            activations=outputs,
        )


def _parse_pair_of(data: dict[str, Any], name: str) -> tuple[int, int]:
    value = data.get(name, 1 if name == "dilation" else None)
    if type(value) is int and value > 0:
        return (value, value)
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(type(v) is int and v > 0 for v in value):
        return (value[0], value[1])
    raise KeyError(name)


def show_size(size: int | tuple[int, int]) -> str:
    """Return a size as people write it: 3x3."""
    return "x".join(map(str, pair(size)))


def _not_empty(op: str, after: Shape, before: Shape, kernel: int | tuple[int, int]) -> Shape:
    if after.height < 1 or after.width < 1:
        raise ShapeError(
            f"{op}: a kernel of {kernel} leaves nothing of a map of {before.height}x{before.width}; "
            "use a smaller kernel or stride, more padding, or a larger image"
        )
    return after


def _parse_pool_padding(value: Any) -> int | tuple[int, int]:
    return parse_pair(value, least=0)


_POOL_PADDING_SCHEMA = WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "array"}]})


class PoolLayer(Spec):
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
        return _not_empty("pool", Shape(shape.channels, height, width), shape, self.kernel)

    def _size(self, size: int, kernel: int, stride: int, padding: int) -> int:
        room = size + 2 * padding - kernel
        if not self.ceil:
            return room // stride + 1
        result = -(-room // stride) + 1
        # As torch: a window may start in the input or its left padding, never beyond.
        return result - 1 if (result - 1) * stride >= size + padding else result

    def cost(self, before: Shape, after: Shape) -> Counts:
        """Nothing, by the papers' convention."""
        return Counts()


class PatchifyLayer(Spec):
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
        channels = dim if self.channels == "dim" else self.channels
        return Shape(channels, shape.height // ph, shape.width // pw)

    def cost(self, before: Shape, after: Shape) -> Counts:
        """One linear layer on each patch."""
        ph, pw = pair(self.patch)
        positions = after.height * after.width
        weights = ph * pw * before.channels * after.channels
        outputs = positions * after.channels
        return Counts(
            flops=weights * positions,
            bias_adds=outputs if self.bias else 0,
            params=weights + (after.channels if self.bias else 0),
            activations=outputs,
        )


Layer = Annotated[ConvLayer | NormLayer | ActLayer | PoolLayer | PatchifyLayer, Field(discriminator="op")]
"""Any layer; `op` says which."""
