"""What all layers share: shapes, counts, and the rules of a layer that changes neither.

Counting conventions (those of the papers, arXiv 2106.14881): flops are multiply-adds of convolutions and linear
layers; an element of a biased output is one bias-add, kept apart; activations are the outputs of convolutions
and linear layers, not of norms, activations or pools.
"""

from __future__ import annotations

import functools
import re
from abc import abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, TypeVar

from pydantic import PlainValidator, WithJsonSchema

from ...errors import nearest, one_of, short
from ..base import LARGEST, Spec, pair, spec_error

if TYPE_CHECKING:
    from torch import nn

    from .trace import Trace


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


def linear_counts(weights: int, after: Shape, bias: bool) -> Counts:
    """Return the counts of a layer that applies `weights` multiply-adds, and as many parameters, at each position."""
    positions = after.height * after.width
    outputs = positions * after.channels
    return Counts(
        flops=weights * positions,
        bias_adds=outputs if bias else 0,
        params=weights + (after.channels if bias else 0),
        activations=outputs,
    )


class ShapeError(ValueError):
    """A feature map that a layer cannot take; `path` is where in the layer list."""

    def __init__(self, message: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.path = path


class LayerSpec(Spec):
    """Base of the layers: what a layer is (its fields), what it makes of a shape, what it costs, and its module.

    A subclass has a field `op: Literal["its_name"] = "its_name"`, and says what differs from this base: a layer that
    sees one position, keeps the shape and costs nothing. Shapes are channels, height, width; `dim` is the width of
    the body that the stem is put on.
    """

    if TYPE_CHECKING:
        op: str
    takes: ClassVar[str] = "other"
    """What the layer is to a convolution before it: a "norm", an "act" or "other" (stemlab.modules.init)."""

    @cached_property
    def window(self) -> tuple[int, int, int, int]:
        """Kernel (dilation included) and stride, (height, width, height, width), where no shape decides them."""
        return (1, 1, 1, 1)

    def reach(self, before: Shape, dim: int) -> tuple[int, int]:
        """Return the height and width of the input that one position of the output sees."""
        return self.window[:2]

    def output(self, shape: Shape, dim: int) -> Shape:
        """Return the shape of the result; ShapeError where there is none."""
        return shape

    def traces(self, before: Shape, dim: int) -> tuple[Trace, ...]:
        """Return the way of the map through each branch, where the layer is made of branches."""
        return ()

    def cost(self, before: Shape, after: Shape, dim: int) -> Counts:
        """Return what the layer costs for one image, from the shapes of its input and output."""
        return Counts()

    @abstractmethod
    def build(self, before: Shape, after: Shape, dim: int) -> nn.Module:
        """Return the torch module: (batch, *before) -> (batch, *after), and other sizes alike."""

    def init(self, module: nn.Module, behind: str) -> None:
        """Initialise the weights of a module made by `build`, where they do not begin as they should.

        `behind` is what takes its output: "norm", "act", "other", or "nothing" at the stem's end.
        """

    def describe(self) -> str:
        """Return the layer in a few words."""
        return str(getattr(self, "op", type(self).__name__))


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


_DIM = re.compile(r"dim(?:/([1-9][0-9]{0,6}))?")


def parse_channels(value: Any) -> int | str:
    """Return a number of channels, or what part of the body's width it is."""
    if type(value) is int and 0 < value <= LARGEST:
        return value
    part = _DIM.fullmatch(value) if isinstance(value, str) else None
    if part:
        return "dim" if part[1] in (None, "1") else f"dim/{part[1]}"
    raise spec_error(
        f"expected a positive whole number of channels (at most {LARGEST}), 'dim' (the body's width) or a part of it "
        f"such as 'dim/2', got {short(value)}"
    )


CHANNELS_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^{_DIM.pattern}$"}]
}
Channels = Annotated[int | str, PlainValidator(parse_channels), WithJsonSchema(CHANNELS_SCHEMA)]
"""A number of channels, "dim" (the width of the body the stem is put on) or a part of it, "dim/2"."""


def channels_on(channels: int | str, dim: int) -> int:
    """Return how many channels these are on a body of width `dim`; ShapeError where the part is not whole."""
    if isinstance(channels, int):
        return channels
    part = int(channels[4:] or 1)
    if dim % part:
        raise ShapeError(f"the body's dim (={dim}) is not divisible by {part}, as channels: {channels} needs")
    return dim // part


def show_size(size: int | tuple[int, int]) -> str:
    """Return a size as people write it: 3x3."""
    return "x".join(map(str, pair(size)))


def not_empty(op: str, after: Shape, before: Shape, kernel: int | tuple[int, int]) -> Shape:
    """Return `after`, or raise the ShapeError of a kernel too large for its map."""
    if after.height < 1 or after.width < 1:
        raise ShapeError(
            f"{op}: a kernel of {kernel} leaves nothing of a map of {before.height}x{before.width}; "
            "use a smaller kernel or stride, more padding, or a larger image"
        )
    return after


L = TypeVar("L", bound=LayerSpec)


def parse_kind(value: Any, what: str, kinds: tuple[str, ...], model: type[L]) -> L | None:
    """Return the norm or activation that a name, a mapping or "none" stands for."""
    if value is None or value == "none":
        return None
    if isinstance(value, str) and value not in kinds:
        raise spec_error(f"unknown {what} {short(value)}; expected {one_of((*kinds, 'none'))}{nearest(value, kinds)}")
    if not isinstance(value, (str, dict, model)):
        article = "an" if what == "activation" else "a"
        raise spec_error(f"expected the name of {article} {what} or a mapping with its kind, got {short(value)}")
    return _named(model, value) if isinstance(value, str) else model.model_validate(value)


@functools.cache
def _named(model: type[L], name: str) -> L:
    """One norm or activation by name: frozen, so all stems of a space can share it."""
    return model.model_validate(name)


def kind_schema(kinds: tuple[str, ...]) -> dict[str, Any]:
    """Return the JSON Schema of what `parse_kind` reads."""
    return {"anyOf": [{"enum": [*kinds, "none", None]}, {"type": "object", "required": ["kind"]}]}
