"""What stands beside the flow: the map that each row gives, and what the row costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..quantities import human
from ..spec.layers import Shape, Step, Trace
from .blocks import Block
from .canvas import Canvas
from .style import BACK, BAR, PAPER, SIDE, SOFT
from .text import side, size, width

LARGE, SMALL = 11.0, 9.5
_SIDE, _DEPTH, _SLANT = 26.0, 22.0, (0.72, 0.5)
_APART, _BAR, _LEAST_ROW = 12.0, 76.0, 27.0


@dataclass(frozen=True)
class MapScale:
    """The scale of the glyphs: the side of the front tells height and width, the depth the channels."""

    pixels: int
    channels: int

    @classmethod
    def of(cls, traces: Sequence[Trace]) -> MapScale:
        """Return the scale on which the maps between the layers of these stems can be compared."""
        shapes = [shape for trace in traces for shape in (trace.start, *(step.after for step in trace))]
        return cls(max(max(shape[1:]) for shape in shapes), max(shape.channels for shape in shapes))

    def box(self, shape: Shape) -> tuple[float, float, float, float]:
        """Return the front's width and height, and how far the back is to the right and up."""
        front = [max(2.5, _SIDE * math.sqrt(length / self.pixels)) for length in (shape.width, shape.height)]
        depth = max(2.0, _DEPTH * math.sqrt(shape.channels / self.channels))
        return front[0], front[1], _SLANT[0] * depth, _SLANT[1] * depth

    def row_height(self, shape: Shape) -> float:
        """Return how high the row of a map has to be."""
        _, h, _, dy = self.box(shape)
        return max(_LEAST_ROW, h + dy + 3)

    def draw(self, canvas: Canvas, shape: Shape, x: float, middle: float) -> None:
        """Draw a map as a box of its proportions, its left side at x."""
        w, h, dx, dy = self.box(shape)
        top = middle - (h + dy) / 2 + dy
        with canvas.group("map", size(shape)):
            for corners, fill in (
                (((x, top), (x + dx, top - dy), (x + w + dx, top - dy), (x + w, top)), BACK),
                (((x + w, top), (x + w + dx, top - dy), (x + w + dx, top - dy + h), (x + w, top + h)), SIDE),
                (((x, top), (x + w, top), (x + w, top + h), (x, top + h)), PAPER),
            ):
                canvas.polygon(corners, fill, SOFT)


@dataclass(frozen=True)
class Row:
    """The words of a row: the map's shape, how it was come by, the share of the flops, the counts."""

    shape: Shape
    step: Step | None = None
    flops: int = 0
    params: int = 0
    share: str = ""

    @classmethod
    def of(cls, block: Block, share: str) -> Row:
        """Return the row of a block."""
        return cls(block.last.after, block.last, block.counts.flops, block.counts.params, share)

    @property
    def place(self) -> str:
        """The stride so far and the receptive field."""
        if self.step is None:
            return "C × H × W"
        return f"stride {side(self.step.stride)} · sees {side(self.step.receptive_field)} px"

    @property
    def cost(self) -> str:
        """The counts, those that are not zero."""
        flops = f"{human(self.flops)} flops" if self.flops else ""
        return " · ".join(filter(None, (flops, f"{human(self.params)} params" if self.params else "")))


class Gutter:
    """The columns beside a stem: glyph, shape, cost."""

    def __init__(self, rows: Sequence[Row], maps: MapScale) -> None:
        self.maps = maps
        boxes = [maps.box(row.shape) for row in rows]
        self.glyphs = max(w + dx for w, _, dx, _ in boxes)
        texts = [max(width(size(r.shape), LARGE, bold=True), width(r.place, SMALL)) for r in rows]
        self.costs = self.glyphs + 8 + max(texts) + _APART
        bar = _BAR + 5 + width("100.0%", LARGE, bold=True)
        self.width = self.costs + max([bar, *(width(row.cost, SMALL) for row in rows)])

    def draw(self, canvas: Canvas, row: Row, x: float, middle: float, longest: int) -> None:
        """Draw a row about a height; the bar of `longest` flops is the longest."""
        self.maps.draw(canvas, row.shape, x, middle)
        words = x + self.glyphs + 8
        canvas.text(words, middle - 2, size(row.shape), LARGE, bold=True)
        canvas.text(words, middle + 10, row.place, SMALL, SOFT)
        cost = x + self.costs
        if row.flops:
            bar = max(1.0, _BAR * row.flops / longest)
            canvas.rect(cost, middle - 10.5, bar, 9, BAR)
            canvas.text(cost + bar + 5, middle - 2, row.share, LARGE, bold=True)
        if row.cost:
            canvas.text(cost, middle + 10, row.cost, SMALL, SOFT)
