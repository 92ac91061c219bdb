"""The flow of a stem: boxes with their strips, branches side by side, what repeats in brackets.

Every part hangs on an axis: it reaches `left` and `right` of it and `height` down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..spec.layers import ParallelLayer, Shape, Step, Trace
from .blocks import Block, runs
from .canvas import Canvas
from .labels import label, tooltip
from .style import CARDS, FAINT, INK, LOOKS, PAPER, SOFT
from .text import fit, width, wrap

NAME, DETAIL, STRIP = 11.0, 9.5, 9.5
"""Sizes of the text on boxes and strips."""

GAP = 14.0
_PAD, _BOX, _DETAIL_LINE, _STRIP_LINE, _PILL = 7.0, 22.0, 11.5, 14.0, 14.0
_NARROWEST, _WIDEST, _MORE = 96.0, 150.0, 72.0
_APART, _CARD_PAD, _MERGE = 14.0, 9.0, 8.5


@dataclass(frozen=True)
class Scale:
    """How wide a box is: enough for its words, and the wider the more channels it gives."""

    least: float
    channels: int

    @classmethod
    def of(cls, traces: Iterable[Trace]) -> Scale:
        """Return the scale on which all boxes of these stems can be compared."""
        steps = [step for trace in traces for step in trace.all_steps()]
        needs = [_needs(step) for step in steps if not isinstance(step.layer, ParallelLayer)]
        least = min(max([_NARROWEST, *needs]), _WIDEST)
        return cls(math.ceil(least), max([1, *(step.after.channels for step in steps)]))

    def width(self, shape: Shape) -> float:
        """Return the width of the box of a layer with that output."""
        return self.least + _MORE * math.sqrt(shape.channels / self.channels)


def _needs(step: Step) -> float:
    words = label(step)
    if step.layer.takes != "other":
        return 2 * _PAD + width(words.name, STRIP)
    first = width(words.name, NAME, bold=True) + width(words.more, NAME) + _pill(words.stride)
    return 2 * _PAD + max([first, *(width(piece, DETAIL) for piece in words.details)])


def _pill(stride: str) -> float:
    return width(stride, DETAIL, bold=True) + 8 + 5 if stride else 0


class Box:
    """A layer with the norms and activations behind it, or such alone."""

    def __init__(self, block: Block, scale: Scale) -> None:
        self.block = block
        self.width = scale.width(block.last.after)
        self.left = self.right = self.width / 2
        self.details: list[str] = []
        self.head_height = 0.0
        if block.head is not None:
            self.details = wrap(label(block.head).details, " · ", self.width - 2 * _PAD, DETAIL)
            self.head_height = _BOX + _DETAIL_LINE * len(self.details)
        self.height = self.head_height + _STRIP_LINE * len(block.strips)

    def draw(self, canvas: Canvas, x: float, y: float) -> None:
        """Draw it below y, its middle at x."""
        if self.block.head is not None:
            self._draw_head(canvas, self.block.head, x - self.left, y)
        draw_strips(canvas, self.block, x, y + self.head_height, self.width)

    def _draw_head(self, canvas: Canvas, step: Step, x: float, y: float) -> None:
        words = label(step)
        fill, edge = LOOKS[words.look]
        with canvas.group("layer", tooltip(step, self.block.times)):
            canvas.rect(x, y, self.width, self.head_height, fill, edge, round=0 if self.block.strips else 2.5)
            room = self.width - 2 * _PAD - _pill(words.stride)
            name = fit(words.name, room, NAME, bold=True)
            more = fit(words.more, room - width(name, NAME, bold=True), NAME) if name == words.name else ""
            canvas.text(x + _PAD, y + 15, name, NAME, bold=True, behind="" if more == "…" else more)
            if words.stride:
                pill = _pill(words.stride) - 5
                left = x + self.width - 4 - pill
                canvas.rect(left, y + 4, pill, _PILL, INK, round=_PILL / 2)
                canvas.text(left + pill / 2, y + 14.4, words.stride, DETAIL, PAPER, bold=True, anchor="middle")
            for index, line in enumerate(self.details):
                canvas.text(x + _PAD, y + _BOX + 4.5 + index * _DETAIL_LINE, line, DETAIL)


def draw_strips(canvas: Canvas, block: Block, x: float, y: float, wide: float) -> None:
    """Draw the norms and activations of a block as thin strips below y."""
    for index, step in enumerate(block.strips):
        words, top = label(step), y + index * _STRIP_LINE
        fill, edge = LOOKS[words.look]
        with canvas.group("layer", tooltip(step, block.times)):
            canvas.rect(x - wide / 2, top, wide, _STRIP_LINE, fill, edge)
            canvas.text(x, top + 10.5, fit(words.name, wide - 2 * _PAD, STRIP), STRIP, anchor="middle")


class Fork:
    """Branches side by side on a card, from one map to the sign that merges them and the strips behind it."""

    def __init__(self, block: Block, scale: Scale, depth: int) -> None:
        self.block, self.depth = block, depth
        layer = block.last.layer if block.head is None else block.head.layer
        assert isinstance(layer, ParallelLayer)
        self.layer = layer
        self.stacks = [Stack(trace, scale, depth + 1) for trace in block.branches]
        self.parts = [f"{t.start.channels} ch" if layer.split is not None else "" for t in block.branches]
        self.strip_width = scale.width(block.last.after) if block.strips else 0.0
        places, end = [], 0.0
        for stack, part in zip(self.stacks, self.parts, strict=True):
            places.append(end + stack.left)
            end += stack.left + max(stack.right, width(part, DETAIL) + 5) + _APART
        total = end - _APART
        full = [place for place, stack in zip(places, self.stacks, strict=True) if stack.entries]
        axis = full[0] if len(full) == 1 else total / 2
        self.places = [place - axis for place in places]
        self.left = max(axis, self.strip_width / 2, _MERGE) + _CARD_PAD
        self.right = max(total - axis, self.strip_width / 2, _MERGE) + _CARD_PAD
        self.top = _CARD_PAD + (12 if layer.split is not None else 0) + GAP
        self.merge = self.top + max(stack.height for stack in self.stacks) + 10 + _MERGE
        behind = 6 + _STRIP_LINE * len(block.strips) if block.strips else 0.0
        self.height = self.merge + _MERGE + behind + _CARD_PAD - 3

    def draw(self, canvas: Canvas, x: float, y: float) -> None:
        """Draw it below y, its axis at x."""
        head = self.block.head
        assert head is not None
        with canvas.group("branches", tooltip(head, self.block.times)):
            canvas.rect(x - self.left, y, self.left + self.right, self.height, CARDS[self.depth % 2], FAINT, round=4)
            rail, merge, end = y + _CARD_PAD, y + self.merge, y + self.height
            canvas.line(((x, y), (x, rail)))
            ends = (x + min(0.0, *self.places), x + max(0.0, *self.places))
            for level in (rail, merge):
                canvas.line(((ends[0], level), (ends[1], level)))
            canvas.line(((x, merge), (x, end)))
            if self.layer.split is None:
                canvas.dot(x, rail, 2)
        for place, stack, part in zip(self.places, self.stacks, self.parts, strict=True):
            if part:
                canvas.text(x + place + 4, rail + 11, part, DETAIL, SOFT)
            bottom = stack.draw(canvas, x + place, y + self.top, rail)
            canvas.line(((x + place, bottom), (x + place, merge)))
        with canvas.group("merge", self.layer.merge):
            canvas.dot(x, merge, _MERGE, PAPER)
            _draw_sign(canvas, self.layer.merge, x, merge)
        draw_strips(canvas, self.block, x, merge + _MERGE + 6, self.strip_width)


def _draw_sign(canvas: Canvas, merge: str, x: float, y: float) -> None:
    r = 4.5 if merge == "sum" else 3.4
    strokes = {
        "sum": (((-r, 0), (r, 0)), ((0, -r), (0, r))),
        "mul": (((-r, -r), (r, r)), ((-r, r), (r, -r))),
        "concat": (((-1.8, -r), (-1.8, r)), ((1.8, -r), (1.8, r))),
    }
    for (x1, y1), (x2, y2) in strokes[merge]:
        canvas.line(((x + x1, y + y1), (x + x2, y + y2)), thick=1.6)


@dataclass(frozen=True)
class Entry:
    """A block in a stack: what draws it, where its row begins below the stack's top, how high the row is."""

    block: Block
    part: Box | Fork
    top: float
    height: float


class Stack:
    """Blocks one below the other; `least` says how high a block's row has to be."""

    def __init__(
        self, trace: Trace, scale: Scale, depth: int = 0, least: Callable[[Block], float] = lambda block: 0
    ) -> None:
        self.entries: list[Entry] = []
        self.brackets: list[tuple[float, float, float, str]] = []
        self.left = self.right = 8.0
        end = 0.0
        for run in runs(trace):
            start, reach = end, 0.0
            for block in run.blocks:
                part = Fork(block, scale, depth) if block.branches else Box(block, scale)
                height = max(part.height, least(block))
                self.entries.append(Entry(block, part, end, height))
                end += height + GAP
                reach, self.right = max(reach, part.left), max(self.right, part.right)
            if run.times > 1:
                words = f"×{run.times}"
                self.brackets.append((reach + 6, start, end - GAP, words))
                reach += 6 + 4 + width(words, NAME, bold=True)
            self.left = max(self.left, reach)
        self.height: float = max(end - GAP, 0.0)

    def draw(self, canvas: Canvas, x: float, y: float, above: float) -> float:
        """Draw it below y, its axis at x, with a line from `above`; return where its last part ends."""
        for entry in self.entries:
            top = y + entry.top + (entry.height - entry.part.height) / 2
            if isinstance(entry.part, Fork):
                canvas.line(((x, above), (x, top)))
            else:
                canvas.arrow(x, above, top)
            entry.part.draw(canvas, x, top)
            above = top + entry.part.height
        for reach, start, end, words in self.brackets:
            left, tick = x - reach, x - reach + 3
            canvas.line(((tick, y + start), (left, y + start), (left, y + end), (tick, y + end)), SOFT, 1.4)
            canvas.text(left - 4, y + (start + end) / 2 + 4, words, NAME, bold=True, anchor="end")
        return above
