"""Which layers there are: those of the core, and those that plug-ins register."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

from pydantic import GetJsonSchemaHandler, PlainValidator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from ...errors import SpecError, nearest, one_of, short
from ..base import spec_error
from .base import LayerSpec

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "stemlab.layers"
"""The entry point group in which an installed package names its layer classes."""

_CLASSES: dict[str, type[LayerSpec]] = {}

L = TypeVar("L", bound=type[LayerSpec])


def register_layer(layer: L) -> L:
    """Make a LayerSpec subclass known by its `op`, so that specs may name it; usable as a class decorator.

    For this process alone: worker processes know the layers of the core and of installed packages, which name theirs
    under the entry point group `stemlab.layers`. SpecError where `op` is missing or another class has it.
    """
    is_layer = isinstance(layer, type) and issubclass(layer, LayerSpec)
    field = layer.__pydantic_fields__.get("op") if is_layer else None
    names = get_args(field.annotation) if field else ()
    if len(names) != 1 or field is None or field.default != names[0] or layer.build is LayerSpec.build:
        raise SpecError(
            f'{layer!r} is not a layer: expected a subclass of LayerSpec with a field op: Literal["name"] = "name" '
            "and a method build()"
        )
    (op,) = names
    known = _CLASSES.get(op)
    # The same class defined anew, as a notebook's cell does when run twice, takes the place of the old one.
    if known is not None and (known.__module__, known.__qualname__) != (layer.__module__, layer.__qualname__):
        raise SpecError(f"op {op!r} is taken by {known.__module__}.{known.__qualname__}; choose another name")
    _CLASSES[op] = layer
    return layer


@functools.cache
def _installed() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # a costly import, for the few specs that need it

    return {point.name: point for point in entry_points(group=GROUP)}


def _class_of(op: str) -> type[LayerSpec] | None:
    if op not in _CLASSES and op in _installed():
        point = _installed()[op]
        try:
            register_layer(point.load())
        except Exception as error:
            raise spec_error(f"op {op!r}: the plug-in {point.value} cannot be loaded: {error}", at=("op",)) from error
        if op not in _CLASSES:
            raise spec_error(f"op {op!r}: the plug-in {point.value} is a layer of another name", at=("op",))
    return _CLASSES.get(op)


def parse_layer(value: Any) -> LayerSpec:
    """Return the layer that a mapping with its `op` stands for."""
    if isinstance(value, LayerSpec):
        return value
    if not isinstance(value, dict):
        raise spec_error(f"must be a mapping, got {short(value)}")
    if "op" not in value:
        raise spec_error("missing field 'op', the kind of layer")
    op = value["op"]
    found = _class_of(op) if isinstance(op, str) else None
    if found is None:
        names = sorted(_CLASSES.keys() | _installed().keys())
        hint = nearest(op, names) or "; a plug-in's layers are known where its package is installed"
        raise spec_error(f"unknown value {short(op)}; expected {one_of(names)}{hint}")
    return found.model_validate(value)


class _AnyLayerSchema:
    """The JSON Schema of a layer: one of the core's or of the plug-ins'."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        for op in _installed():
            # What cannot be loaded is no layer; a spec that names it is told why.
            with contextlib.suppress(PydanticCustomError):
                _class_of(op)
        return {"oneOf": [handler(layer.__pydantic_core_schema__) for layer in _CLASSES.values()]}


ParsedLayer = Annotated[LayerSpec, PlainValidator(parse_layer), _AnyLayerSchema()]
"""Any layer; `op` says which."""
