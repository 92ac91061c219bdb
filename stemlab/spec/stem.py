"""StemSpec: four ways to write a stem, one layer list that all of them become."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, GetJsonSchemaHandler, PlainValidator, SerializeAsAny, WithJsonSchema, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from .. import published
from ..errors import nearest, short
from .base import LARGEST, PAIR_SCHEMA, Flag, Pair, Spec, pair, parse_each, parse_pair, relation_error, spec_error
from .layers import (
    ACT_SCHEMA,
    NORM_SCHEMA,
    PADDING_SCHEMA,
    ActLayer,
    Channels,
    ConvLayer,
    LayerSpec,
    NormLayer,
    Order,
    ParsedLayer,
    PatchifyLayer,
    Shape,
    ShapeError,
    Trace,
    flat,
    follow,
    parse_act,
    parse_norm,
    parse_padding,
    window_of,
)


def _column(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the reader of a column: one value for all layers, or a list with one for each."""

    def read(value: Any) -> Any:
        return parse_each(parse, value) if isinstance(value, (list, tuple)) else parse(value)

    return read


def _column_schema(schema: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [schema, {"type": "array", "items": schema, "minItems": 1}]})


Sizes = Annotated[Any, PlainValidator(_column(parse_pair)), _column_schema(PAIR_SCHEMA)]
Paddings = Annotated[Any, PlainValidator(_column(parse_padding)), _column_schema(PADDING_SCHEMA)]
Norms = Annotated[Any, PlainValidator(_column(parse_norm)), _column_schema(NORM_SCHEMA)]
Acts = Annotated[Any, PlainValidator(_column(parse_act)), _column_schema(ACT_SCHEMA)]


def _parse_project(value: Any) -> bool | int:
    if isinstance(value, bool) or (isinstance(value, int) and 0 < value <= LARGEST):
        return value
    raise spec_error(f"expected true, false or the size of the projection, 1 or more, got {short(value)}")


Project = Annotated[
    bool | int,
    PlainValidator(_parse_project),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "integer", "minimum": 1}]}),
]


class PatchStem(Spec):
    """The patchify stem in short: `{patch: 16}`."""

    patch: Pair
    bias: Flag = True

    def expand(self) -> tuple[LayerSpec, ...]:
        """Return the layer list."""
        return (PatchifyLayer(patch=self.patch, bias=self.bias),)


class ColumnarStem(Spec):
    """A stack of convolutions in short: one column a field, scalars shared by all layers.

    The convolutions have no bias unless asked for. `project` ends the stem with a 1x1 convolution with bias to
    the body's width, as in arXiv 2106.14881; a number n does so with an n x n convolution of stride n, as in
    arXiv 2109.03810.
    """

    channels: Annotated[tuple[Channels, ...], Field(min_length=1)]
    kernels: Sizes = 3
    strides: Sizes = 2
    paddings: Paddings = "same"
    norm: Norms = None
    act: Acts = None
    order: Order = "conv-norm-act"
    bias: Flag = False
    project: Project = True

    @model_validator(mode="after")
    def _columns_agree(self) -> ColumnarStem:
        for name in ("kernels", "strides", "paddings", "norm", "act"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != len(self.channels):
                raise relation_error(
                    f"{name} has {len(value)} values for {len(self.channels)} layers; "
                    "give one value for all layers or one for each",
                    at=(name,),
                )
        return self

    def expand(self) -> tuple[LayerSpec, ...]:
        """Return the layer list."""
        layers: list[LayerSpec] = []
        for index, channels in enumerate(self.channels):
            kernel, stride, padding, norm, act = (
                value[index] if isinstance(value, tuple) else value
                for value in (self.kernels, self.strides, self.paddings, self.norm, self.act)
            )
            layers += _block(channels, kernel, stride, padding, norm, act, self.order, self.bias)
        if self.project:
            size = int(self.project)
            layers += _block("dim", size, size, 0, None, None, self.order, True)
        return tuple(layers)


@functools.lru_cache(maxsize=4096)
def _block(
    channels: int | str,
    kernel: Any,
    stride: Any,
    padding: Any,
    norm: NormLayer | None,
    act: ActLayer | None,
    order: Order,
    bias: bool,
) -> tuple[LayerSpec, ...]:
    # Frozen layers can be shared by all the stems of a space, which makes a stem cheap to expand.
    fields = {"channels": channels, "kernel": kernel, "stride": stride, "padding": padding, "bias": bias}
    conv = ConvLayer.model_validate(fields)
    behind = (act, norm) if order == "conv-act-norm" else (norm, act)
    return (conv, *(layer for layer in behind if layer is not None))


class LayerStem(Spec):
    """The general form: the layers one by one. A convolution may carry its norm and activation."""

    layers: Annotated[tuple[SerializeAsAny[ParsedLayer], ...], Field(min_length=1)]

    def expand(self) -> tuple[LayerSpec, ...]:
        """Return the layer list, each norm and activation a layer of its own."""
        return flat(self.layers)


_FORMS: dict[str, type[PatchStem | ColumnarStem | LayerStem]] = {
    "layers": LayerStem,
    "patch": PatchStem,
    "channels": ColumnarStem,
}


@functools.cache
def _from_zoo(name: str) -> tuple[LayerSpec, ...]:
    return StemSpec.model_validate(published.read(name)["stem"]).layers


class StemSpec(Spec):
    """A stem: layers from an image to the tokens of a transformer.

    Written as a name from the zoo, `{patch: 16}`, columns (`{channels: [...], kernels: 3, ...}`) or
    `{layers: [...]}`; whatever the form, `layers` holds the whole list, and equal networks are equal specs.
    """

    layers: tuple[SerializeAsAny[ParsedLayer], ...]

    @model_validator(mode="before")
    @classmethod
    def _normalise(cls, data: Any) -> Any:
        if isinstance(data, str):
            try:
                return {"layers": _from_zoo(data)}
            except KeyError as error:
                raise spec_error(str(error.args[0])) from None
        if not isinstance(data, dict):
            if isinstance(data, StemSpec):
                return data
            raise spec_error(f"expected a name from the zoo or a mapping, got {short(data)}")
        for key, form in _FORMS.items():
            if key in data:
                return {"layers": form.model_validate(data).expand()}
        fields = {name for form in _FORMS.values() for name in form.model_fields}
        misspelt = next((name for name in data if name not in fields and nearest(name, fields)), None)
        hint = nearest(misspelt, fields) if misspelt is not None else ""
        raise spec_error(
            "a stem is a name from the zoo, {patch: ...}, {channels: [...], ...} or {layers: [...]}; "
            f"none of these has only the fields {short(sorted(map(str, data)))}{hint}",
            at=() if misspelt is None else (misspelt,),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe the written forms, not only the canonical one."""
        forms = [form.__pydantic_core_schema__ for form in _FORMS.values()]
        return {"anyOf": [{"type": "string", "description": "a name from the zoo"}, *map(handler, forms)]}

    @cached_property
    def stride(self) -> tuple[int, int]:
        """The total stride, (height, width): the product of the layers' strides."""
        return window_of(self.layers)[2:]

    def misfit(
        self, image_size: int | tuple[int, int], dim: int, in_channels: int = 3, divided: bool = True
    ) -> ShapeError | None:
        """Return why a body of width `dim` cannot have this stem for images of that size; None where it can.

        `divided` says that the total stride has to divide the image.
        """
        size = pair(image_size)
        for name, pixels, stride in zip(("height", "width"), size, self.stride, strict=True):
            if divided and pixels % stride:
                below = pixels // stride * stride
                sizes = f"{below} or {below + stride}" if below else f"{stride}"
                return ShapeError(
                    f"the stem's total stride (={stride}) does not divide the image's {name} (={pixels}); "
                    f"the nearest that works: {sizes}"
                )
        try:
            end = self.trace(*size, dim, in_channels).end
        except ShapeError as error:
            return error
        if end.channels != dim:
            return ShapeError(
                f"the stem ends with {end.channels} channels but the body's dim is {dim}; "
                "end it with a projection (project: true, or channels: dim in the last layer)"
            )
        return None

    def trace(self, height: int, width: int, dim: int, in_channels: int = 3) -> Trace:
        """Follow an image of height x width pixels through the layers; ShapeError where one cannot take its input.

        The receptive field counts pixels that one output position sees, ignoring the image's borders.
        """
        key = (height, width, dim, in_channels)
        if key not in self._traces:
            self._traces[key] = follow(self.layers, Shape(in_channels, height, width), dim)
        return self._traces[key]

    @cached_property
    def _traces(self) -> dict[tuple[int, int, int, int], Trace]:
        """Traces made before: a model is checked, costed and matched by the same one."""
        return {}
