"""How a map is padded before a convolution or a pool."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import PlainValidator, SerializeAsAny, WithJsonSchema
from pydantic_core import PydanticCustomError

from ...errors import short
from ..base import LARGEST, pair, parse_pair, spec_error

Sides = tuple[int, int, int, int]
"""Left, right, top, bottom."""


def parse_padding(value: Any) -> int | Sides | str:
    """Return a padding in its canonical form: one number where all sides are equal."""
    if value in ("same", "tf_same") or (type(value) is int and 0 <= value <= LARGEST):
        return value  # type: ignore[no-any-return]
    if (
        isinstance(value, (list, tuple))
        and len(value) in (2, 4)
        and all(type(v) is int and 0 <= v <= LARGEST for v in value)
    ):
        if len(value) == 2:
            height, width = value
            value = (width, width, height, height)
        return value[0] if len(set(value)) == 1 else tuple(value)
    raise spec_error(
        "expected a whole number, [height, width], [left, right, top, bottom], 'same' or 'tf_same' (TensorFlow's), "
        f"got {short(value)}"
    )


_SIDES_SCHEMA = {"type": "array", "items": {"type": "integer", "minimum": 0}}
PADDING_SCHEMA = {
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {**_SIDES_SCHEMA, "minItems": 2, "maxItems": 2},
        {**_SIDES_SCHEMA, "minItems": 4, "maxItems": 4},
        {"enum": ["same", "tf_same"]},
    ]
}
Padding = Annotated[
    int | tuple[int, int, int, int] | Literal["same", "tf_same"],
    PlainValidator(parse_padding),
    SerializeAsAny(),
    WithJsonSchema(PADDING_SCHEMA),
]
"""One number, [height, width], [left, right, top, bottom], "same" (half the kernel) or "tf_same"."""


def with_explicit_padding(data: Any) -> Any:
    """Return a layer's fields with `same` written out, which its kernel and dilation decide."""
    if not isinstance(data, dict) or data.get("padding", "same") != "same":
        return data
    try:
        kernel, dilation = (pair(parse_pair(data.get(name, 1))) for name in ("kernel", "dilation"))
    except PydanticCustomError:
        return data  # the field's own validator says what is wrong with it
    (kh, kw), (dh, dw) = kernel, dilation
    ph, pw = dh * (kh - 1), dw * (kw - 1)
    return {**data, "padding": (pw // 2, pw - pw // 2, ph // 2, ph - ph // 2)}


def sides_of(padding: int | Sides | str) -> Sides | None:
    """Return (left, right, top, bottom); None for "tf_same", which depends on the input."""
    if isinstance(padding, str):
        return None
    return (padding,) * 4 if isinstance(padding, int) else padding


def padded_size(size: tuple[int, int], window: tuple[int, int, int, int], sides: Sides | None) -> tuple[int, int]:
    """Return the (height, width) that a window (kernel, then stride) makes of a padded map."""
    (height, width), (kh, kw, sh, sw) = size, window
    if sides is None:
        return -(-height // sh), -(-width // sw)
    left, right, top, bottom = sides
    return (height + top + bottom - kh) // sh + 1, (width + left + right - kw) // sw + 1
