"""Padding as a layer of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import field_validator

from ..base import SignedNumber, relation_error
from .base import LayerSpec, Shape
from .padding import Padding, sides_of

if TYPE_CHECKING:
    from torch import nn


class PadLayer(LayerSpec):
    """A border of one value around the map: [left, right, top, bottom].

    Before a convolution its own `padding` says the same; this is for a border before a norm, an activation or a pool.
    """

    op: Literal["pad"] = "pad"
    padding: Padding
    value: SignedNumber = 0.0

    @field_validator("padding")
    @classmethod
    def _is_a_number(cls, padding: int | tuple[int, ...] | str) -> int | tuple[int, ...] | str:
        if isinstance(padding, str):
            raise relation_error(f"padding: {padding} needs a kernel; expected a number or [left, right, top, bottom]")
        return padding

    def describe(self) -> str:
        """Return the layer in a few words."""
        return f"pad {self.padding}" + (f" of {self.value:g}" if self.value else "")

    def output(self, shape: Shape, dim: int) -> Shape:
        """Return the shape with its border."""
        left, right, top, bottom = sides_of(self.padding) or (0, 0, 0, 0)
        return Shape(shape.channels, shape.height + top + bottom, shape.width + left + right)

    def build(self, before: Shape, after: Shape, dim: int) -> nn.Module:
        """Return torch's constant padding."""
        from torch import nn

        return nn.ConstantPad2d(sides_of(self.padding) or 0, self.value)
