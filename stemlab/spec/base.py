"""What all specs share: frozen, closed, with one canonical JSON form and a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    SerializeAsAny,
    Strict,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ..errors import nearest, one_of, short

LARGEST = 2**20
"""No size of a model, kernel or image is larger: beyond it is a slip of the pen, and a machine out of memory."""

PositiveInt = Annotated[int, Strict(), Field(gt=0, le=LARGEST)]
Count = Annotated[int, Strict(), Field(ge=0, le=LARGEST)]
Seed = Annotated[int, Strict(), Field(ge=0, lt=2**32)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
# Adding zero makes 0.0 of -0.0: equal numbers have one canonical form.
SignedNumber = Annotated[Number, AfterValidator(lambda value: value + 0.0)]
Flag = Annotated[bool, Strict()]


def spec_error(message: str, at: tuple[str | int, ...] = ()) -> PydanticCustomError:
    """Return an error for a validator to raise about one value; `at` is its path below the model validated."""
    # pydantic formats the message with the context, so braces that belong to the message must not be seen.
    return PydanticCustomError("value", "{message}", {"message": message, "at": at})


def relation_error(message: str, at: tuple[str | int, ...] = ()) -> PydanticCustomError:
    """Return an error about values that do not go together: in a space with holes, other fillings may do."""
    return PydanticCustomError("relation", "{message}", {"message": message, "at": at})


class Spec(BaseModel):
    """Base of every spec: immutable, no unknown fields, comparable by value, identified by `digest`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    _names: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Remember the field names, for the check of unknown ones."""
        super().__pydantic_init_subclass__(**kwargs)
        cls._names = frozenset(cls.model_fields)

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_field(cls, data: Any) -> Any:
        # pydantic's own check cannot name the valid fields, and the nearest of them is what the user needs.
        if isinstance(data, dict) and not data.keys() <= cls._names:
            name = next(key for key in data if key not in cls._names)
            raise spec_error(
                f"unknown field {short(name)}; expected {one_of(cls.model_fields)}{nearest(name, cls._names)}",
                at=(name,),
            )
        return data

    def canonical(self) -> dict[str, Any]:
        """Return the canonical JSON document: every default written out, absent options left out."""
        # Not pydantic's: an interrupt (Ctrl-C) in a serializer of its becomes an error of another kind.
        values = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: _plain(value) for name, value in values if value is not None}

    def canonical_json(self) -> str:
        """Return the canonical document as compact JSON with sorted keys: what `digest` is taken of."""
        return json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @cached_property
    def digest(self) -> str:
        """The first 16 hex digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()[:16]

    def __copy__(self) -> Self:
        """Copy the fields alone: what a cached property has worked out may not hold for a changed copy."""
        copied = super().__copy__()
        for name in copied.__dict__.keys() - self._names:
            del copied.__dict__[name]
        return copied

    def replace(self, **changes: Any) -> Self:
        """Return a copy with fields changed, validated anew."""
        return type(self).model_validate({**{name: getattr(self, name) for name in self._names}, **changes})


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of a size that may be one number for both."""
    return (size, size) if isinstance(size, int) else size


def parse_each(parse: Callable[[Any], Any], values: Iterable[Any]) -> tuple[Any, ...]:
    """Return each value of a list parsed; the error of one says which it is."""
    items = []
    for index, value in enumerate(values):
        try:
            items.append(parse(value))
        except PydanticCustomError as error:
            raise spec_error(error.message(), at=(index, *(error.context or {}).get("at", ()))) from None
    return tuple(items)


def _whole(value: Any, least: int) -> int:
    if type(value) is not int:
        raise spec_error(f"expected a whole number, got {short(value)}")
    if value < least:
        raise spec_error(f"must be at least {least}, got {short(value)}")
    if value > LARGEST:
        raise spec_error(f"must be at most {LARGEST}, got {short(value)}")
    return value


def given(data: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that have a value: null means the default, whatever that is."""
    return {name: value for name, value in data.items() if value is not None}


def parse_pair(value: Any, least: int = 1) -> int | tuple[int, int]:
    """Return a size given as one number or as [height, width], canonically one number when they are equal."""
    if type(value) is int:
        return _whole(value, least)
    if isinstance(value, (list, tuple)) and len(value) == 2:
        height, width = (_whole(v, least) for v in value)
        return height if height == width else (height, width)
    raise spec_error(f"expected a whole number or [height, width], got {short(value)}")


PAIR_SCHEMA = {
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2, "maxItems": 2},
    ]
}


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.canonical()
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value


Pair = Annotated[int | tuple[int, int], PlainValidator(parse_pair), SerializeAsAny(), WithJsonSchema(PAIR_SCHEMA)]
"""A height and a width, canonically one number when they are equal."""
