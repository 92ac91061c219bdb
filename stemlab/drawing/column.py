"""One stem of a picture: title, flow, what stands beside it, totals."""

from __future__ import annotations

from ..quantities import human
from ..spec.layers import Counts, Trace
from .canvas import Canvas
from .flow import GAP, Scale, Stack
from .gutter import Gutter, MapScale, Row
from .style import INK, PAPER, SOFT
from .text import fit, shares, side, size, width
from .totals import Totals

_TITLE, _NOTE, _END, _PILL, _APART = 15.0, 10.5, 11.0, 22.0, 18.0


class Column:
    """One stem: title, flow, gutter, totals."""

    def __init__(self, trace: Trace, title: str, note: str, scale: Scale, maps: MapScale, most: Counts | None) -> None:
        self.trace, self.title, self.note = trace, title, note
        self.stack = Stack(trace, scale, least=lambda b: 0.0 if b.changes_nothing else maps.row_height(b.last.after))
        blocks = [entry.block for entry in self.stack.entries]
        percent = shares([block.counts.flops for block in blocks])
        self.start = Row(trace.start)
        self.rows = [Row.of(block, share) for block, share in zip(blocks, percent, strict=True)]
        self.gutter = Gutter([self.start, *self.rows], maps)
        self.totals = Totals(trace, most)
        self.ends = (f"image {size(trace.start[1:])}", f"{trace.tokens} tokens × {trace.end.channels}")
        ends = max(width(words, _END, bold=True) + 24 for words in self.ends)
        self.left, self.right = max(self.stack.left, ends / 2), max(self.stack.right, ends / 2)
        self.first = max(_PILL, maps.row_height(trace.start))
        self.width = max(self.left + self.right + _APART + self.gutter.width, self.totals.width)
        self.height = self.first + GAP + self.stack.height + GAP + _PILL

    def draw(self, canvas: Canvas, x: float, y: float, top: float, foot: float, longest: int) -> None:
        """Draw the column, its left edge at x: the title below y, the flow from `top`, the totals at `foot`."""
        with canvas.group("stem", self.words()):
            if self.title:
                canvas.text(x, y + 12, fit(self.title, self.width, _TITLE, bold=True), _TITLE, bold=True)
            if self.note:
                canvas.text(x, y + 28, fit(self.note, self.width, _NOTE), _NOTE, SOFT)
            axis, gutter = x + self.left, x + self.left + self.right + _APART
            end = self._pill(canvas, self.ends[0], axis, top + (self.first - _PILL) / 2)
            self.gutter.draw(canvas, self.start, gutter, top + self.first / 2, longest)
            below = top + self.first + GAP
            end = self.stack.draw(canvas, axis, below, end)
            for entry, row in zip(self.stack.entries, self.rows, strict=True):
                if not entry.block.changes_nothing:
                    self.gutter.draw(canvas, row, gutter, below + entry.top + entry.height / 2, longest)
            last = below + self.stack.height + GAP
            canvas.arrow(axis, end, last)
            self._pill(canvas, self.ends[1], axis, last)
            self.totals.draw(canvas, x, foot, self.width)

    def _pill(self, canvas: Canvas, words: str, axis: float, y: float) -> float:
        wide = width(words, _END, bold=True) + 24
        canvas.rect(axis - wide / 2, y, wide, _PILL, PAPER, INK, round=_PILL / 2)
        canvas.text(axis, y + 15, words, _END, bold=True, anchor="middle")
        return y + _PILL

    def words(self) -> str:
        """Return the stem in a sentence."""
        trace = self.trace
        return (
            f"{self.title or 'A stem'}: {len(trace)} layers from {size(trace.start)} to {size(trace.end)}, "
            f"{human(trace.counts.flops)} multiply-adds, {human(trace.counts.params)} parameters, "
            f"stride {side(trace.stride)}, receptive field {side(trace.receptive_field)} pixels, {trace.tokens} tokens."
        )
