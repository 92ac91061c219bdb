"""Branches beside each other."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, SerializeAsAny, WithJsonSchema, model_validator

from ...errors import nearest, short
from ..base import given, parse_each, relation_error, spec_error
from .base import CHANNELS_SCHEMA, Counts, LayerSpec, Shape, ShapeError, channels_on, parse_channels
from .conv import ConvLayer
from .registry import ParsedLayer
from .trace import Trace, follow, init, window_of

if TYPE_CHECKING:
    from torch import nn


def flat(layers: Iterable[LayerSpec]) -> tuple[LayerSpec, ...]:
    """Return the layers with each norm and activation that a convolution carries as a layer of its own."""
    result: list[LayerSpec] = []
    for layer in layers:
        result += (layer.alone(), *layer.then()) if isinstance(layer, ConvLayer) else (layer,)
    return tuple(result)


Branch = Annotated[tuple[SerializeAsAny[ParsedLayer], ...], AfterValidator(flat)]
_BRANCH_SCHEMA = {"type": "array", "items": {"type": "object", "required": ["op"]}}


def _parse_split(value: Any) -> tuple[int | str, ...] | str | None:
    if value is None or value == "equal":
        return value  # type: ignore[no-any-return]
    if not isinstance(value, (list, tuple)):
        hint = nearest(value, ["equal"])
        raise spec_error(f"expected 'equal' or a list of channels, one for each branch, got {short(value)}{hint}")
    return parse_each(parse_channels, value)


_SPLIT_SCHEMA = {
    "anyOf": [{"const": "equal"}, {"type": "array", "items": CHANNELS_SCHEMA, "minItems": 2}, {"type": "null"}]
}


class ParallelLayer(LayerSpec):
    """Branches applied to the same map, their outputs summed, concatenated or multiplied.

    An empty branch is the identity, so that residual blocks (sum with identity), re-parameterised blocks (sum of
    convolutions), squeeze-and-excite (mul of identity and a gate) and multi-scale embeddings (concat) are one op.
    With `split`, each branch takes its own part of the channels: a list of widths, or "equal".

    Sums and products broadcast over axes of length one, as torch does: the gate may be one position.
    """

    op: Literal["parallel"] = "parallel"
    branches: Annotated[
        tuple[Branch, ...],
        Field(min_length=2),
        WithJsonSchema({"type": "array", "items": _BRANCH_SCHEMA, "minItems": 2}),
    ]
    merge: Literal["sum", "concat", "mul"] = "sum"
    split: Annotated[
        tuple[int | str, ...] | Literal["equal"] | None,
        PlainValidator(_parse_split),
        SerializeAsAny(),
        WithJsonSchema(_SPLIT_SCHEMA),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _merge_of_split(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("split") is not None:
            return {"merge": "concat", **given(data)}
        return data

    @model_validator(mode="after")
    def _branches_agree(self) -> ParallelLayer:
        if isinstance(self.split, tuple) and len(self.split) != len(self.branches):
            raise relation_error(f"split has {len(self.split)} parts for {len(self.branches)} branches", at=("split",))
        if len(self._strides) > 1:
            shown = " and ".join(sorted(f"{h}x{w}" for h, w in self._strides))
            raise relation_error(f"branches have strides {shown}; all must have the same", at=("branches",))
        return self

    @cached_property
    def _strides(self) -> set[tuple[int, int]]:
        # What is pooled to one position has no stride: it is broadcast over any map.
        return {window_of(branch)[2:] for branch in self.branches if not any(map(_is_one_position, branch))}

    @cached_property
    def window(self) -> tuple[int, int, int, int]:
        """The largest kernel of a branch, and the stride, (height, width, height, width)."""
        kh, kw, _, _ = zip(*(window_of(branch) for branch in self.branches), strict=True)
        return (max(kh), max(kw), *next(iter(self._strides), (1, 1)))

    @cached_property
    def _traces(self) -> dict[tuple[Shape, int], tuple[Trace, ...]]:
        return {}

    def parts(self, channels: int, dim: int) -> tuple[int, ...] | None:
        """Return how many channels each branch takes; None where all take all."""
        if self.split is None:
            return None
        count = len(self.branches)
        if self.split == "equal":
            if channels % count:
                raise ShapeError(f"parallel: {channels} channels cannot be split equally among {count} branches")
            return (channels // count,) * count
        parts = tuple(channels_on(part, dim) for part in self.split)
        if sum(parts) != channels:
            raise ShapeError(f"parallel: split {list(parts)} makes {sum(parts)} channels, but {channels} come in")
        return parts

    def traces(self, before: Shape, dim: int) -> tuple[Trace, ...]:
        """Return the way of the map through each branch."""
        key = (before, dim)
        if key not in self._traces:
            parts = self.parts(before.channels, dim) or (before.channels,) * len(self.branches)
            found = []
            for index, (branch, part) in enumerate(zip(self.branches, parts, strict=True)):
                try:
                    found.append(follow(branch, before._replace(channels=part), dim))
                except ShapeError as error:
                    raise ShapeError(str(error), ("branches", index, *error.path)) from None
            self._traces[key] = tuple(found)
        return self._traces[key]

    def reach(self, before: Shape, dim: int) -> tuple[int, int]:
        """Return the largest height and width that a branch sees."""
        heights, widths = zip(*(trace.receptive_field for trace in self.traces(before, dim)), strict=True)
        return max(heights), max(widths)

    def describe(self) -> str:
        """Return the layer in a few words."""
        inside = " | ".join(", ".join(layer.describe() for layer in branch) or "identity" for branch in self.branches)
        split = "" if self.split is None else " of split channels"
        return f"{self.merge}{split} [{inside}]"

    def output(self, shape: Shape, dim: int) -> Shape:
        """Return the merged shape; ShapeError where the branches' outputs do not fit each other."""
        ends = [trace.end for trace in self.traces(shape, dim)]
        shown = " and ".join("x".join(map(str, end)) for end in ends)
        if self.merge == "concat":
            if len({end[1:] for end in ends}) > 1:
                raise ShapeError(f"parallel: branches end with maps of {shown}, which cannot be concatenated")
            return ends[0]._replace(channels=sum(end.channels for end in ends))
        merged = []
        for sizes in zip(*ends, strict=True):
            lengths = set(sizes) - {1}
            if len(lengths) > 1:
                raise ShapeError(f"parallel: branches end with maps of {shown}, which have no {self.merge}")
            merged.append(lengths.pop() if lengths else 1)
        return Shape(*merged)

    def cost(self, before: Shape, after: Shape, dim: int) -> Counts:
        """Return what all branches cost together; by the papers' convention merging costs no multiply-adds."""
        return Counts(*map(sum, zip(*(trace.counts for trace in self.traces(before, dim)), strict=True)))

    def build(self, before: Shape, after: Shape, dim: int) -> nn.Module:
        """Return the Parallel module."""
        from ...modules.parallel import Parallel

        branches = [trace.build() for trace in self.traces(before, dim)]
        return Parallel(branches, self.merge, self.parts(before.channels, dim))

    def init(self, module: nn.Module, behind: str) -> None:
        """Initialise each branch; what takes the merged map takes the branch's."""
        for branch, modules in zip(self.branches, module.branches, strict=True):  # type: ignore[arg-type]
            init(branch, modules, behind)


def _is_one_position(layer: LayerSpec) -> bool:
    if isinstance(layer, ParallelLayer):
        return not layer._strides
    return getattr(layer, "kind", None) == "global"
