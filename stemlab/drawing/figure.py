"""The whole picture: stems side by side on one scale, each from the image at the top to the tokens."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import SpecError, short
from ..spec.files import write_text
from ..spec.layers import Counts, Trace
from .blocks import Block
from .canvas import Canvas
from .flow import GAP, Scale, Stack
from .gutter import Gutter, MapScale, Row
from .style import FAINT, INK, PAPER, SOFT
from .text import clean, fit, human, shares, side, size, width, wrap
from .totals import HEIGHT, Totals

_MARGIN, _BETWEEN, _PILL = 18.0, 34.0, 22.0
_TITLE, _NOTE, _HEADING, _END = 15.0, 10.5, 9.5, 11.0


@dataclass(frozen=True)
class Diagram:
    """A picture of stems: `svg` is the whole document. A notebook shows it as it is."""

    svg: str

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture to a file, whole or not at all; SpecError where the path cannot be that of an SVG."""
        target = check_path(path)
        write_text(target, self.svg)
        return target

    def _repr_svg_(self) -> str:
        return self.svg


def check_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a picture; SpecError where none can be written there."""
    target = Path(path)
    if target.suffix.lower() != ".svg":
        raise SpecError(f"{short(os.fspath(path))} is not the name of an SVG file; expected one that ends in .svg")
    if target.is_dir():
        raise SpecError(f"{target}: is a folder; expected the name of an SVG file")
    if not os.path.isdir(target.parent):
        raise SpecError(f"{target}: cannot be written: there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise SpecError(f"{target}: cannot be written: no permission to write to {target.parent}")
    return target


def diagram(
    traces: Trace | Sequence[Trace],
    titles: str | Sequence[str] | None = None,
    notes: str | Sequence[str] | None = None,
) -> str:
    """Return the picture of stems, given by their traces, as a self-contained SVG document.

    Each stem is a column, all on one scale: boxes are wider the more channels they give; beside each row stand the
    map it gives, its total stride, its receptive field in pixels, and its share of the stem's flops. `titles` and
    `notes` (a line below the title) are one for each stem. The same stems give the same text. Needs no torch.
    """
    if isinstance(traces, Trace):
        traces = [traces]
    columns = list(traces)
    if not columns:
        raise SpecError("a diagram needs at least one stem")
    heads = list(
        zip(columns, _each(titles, len(columns), "title"), _each(notes, len(columns), "note"), strict=True)
    )
    scale, maps = Scale.of(columns), MapScale.of(columns)
    stacks = [Stack(trace, scale) for trace in columns]
    most_flops = max([1, *(entry.block.counts.flops for stack in stacks for entry in stack.entries)])
    most = Counts(*map(max, zip(*(trace.counts for trace in columns), strict=True))) if len(columns) > 1 else None
    made = [_Column(trace, title, note, scale, maps, most_flops, most) for trace, title, note in heads]
    noted = any(column.note for column in made)

    canvas = Canvas()
    top = _MARGIN + 15 + (17 if noted else 0) + 18
    foot = top + max(column.height for column in made) + 16
    x = _MARGIN
    for column in made:
        column.draw(canvas, x, top, foot, noted)
        x += column.width + _BETWEEN
    width_ = x - _BETWEEN + _MARGIN
    y = foot + HEIGHT + (8 if most else 0) + 2
    for line in wrap(_legend(most_flops), "  ·  ", width_ - 2 * _MARGIN, _HEADING, most=4):
        canvas.text(_MARGIN, y, line, _HEADING, SOFT)
        y += 13
    names = ", ".join(column.title for column in made if column.title)
    return canvas.svg(
        width_,
        y + _MARGIN - 12,
        f"Diagram of {names}" if names else "Diagram of a stem",
        " ".join(column.words() for column in made),
    )


def _each(given: str | Sequence[str] | None, count: int, what: str) -> list[str]:
    texts = [""] * count if given is None else [given] if isinstance(given, str) else list(given)
    if len(texts) != count:
        raise SpecError(f"{what}s has {len(texts)} values for {count} stems; give one {what} for each")
    return [clean(text) for text in texts]


def _legend(most_flops: int) -> list[str]:
    return [
        "box width and map depth: channels",
        "map front: height × width",
        "↓2: stride 2",
        f"bars: flops (multiply-adds), the longest {human(most_flops)}",
        "%: share of the stem’s flops",
    ]


class _Column:
    """One stem: title, flow, gutter, totals."""

    def __init__(
        self, trace: Trace, title: str, note: str, scale: Scale, maps: MapScale, most_flops: int, most: Counts | None
    ) -> None:
        self.trace, self.title, self.note = trace, title, note
        flat = Stack(trace, scale)
        blocks = [entry.block for entry in flat.entries]
        self.rows = [Row.of(block, share) for block, share in zip(blocks, shares([b.counts.flops for b in blocks]))]
        self.start = Row(trace.start)
        self.gutter = Gutter([self.start, *self.rows], maps, most_flops)
        self.stack = Stack(trace, scale, least=self._least)
        self.totals = Totals(trace, most)
        self.ends = (f"image {size(trace.start[1:])}", f"{trace.tokens} tokens × {trace.end.channels}")
        ends = max(width(words, _END, bold=True) + 24 for words in self.ends)
        self.left, self.right = max(self.stack.left, ends / 2), max(self.stack.right, ends / 2)
        self.first = max(_PILL, self.gutter.height(trace.start))
        self.width = max(self.left + self.right + 18 + self.gutter.width, self.totals.width)
        self.height = self.first + GAP + self.stack.height + GAP + _PILL

    def _least(self, block: Block) -> float:
        return 0.0 if block.changes_nothing else self.gutter.height(block.last.after)

    def draw(self, canvas: Canvas, x: float, top: float, foot: float, noted: bool) -> None:
        """Draw the column, its left edge at x, the flow from `top`, the totals at `foot`."""
        with canvas.group("stem", self.words()):
            canvas.text(x, _MARGIN + 12, fit(self.title, self.width, _TITLE, bold=True), _TITLE, bold=True)
            if noted:
                canvas.text(x, _MARGIN + 28, fit(self.note, self.width, _NOTE), _NOTE, SOFT)
            axis, gutter = x + self.left, x + self.left + self.right + 18
            end = self._pill(canvas, self.ends[0], axis, top + (self.first - _PILL) / 2)
            self.gutter.draw(canvas, self.start, gutter, top + self.first / 2)
            below = top + self.first + GAP
            end = self.stack.draw(canvas, axis, below, end)
            for entry, row in zip(self.stack.entries, self.rows, strict=True):
                if not entry.block.changes_nothing:
                    self.gutter.draw(canvas, row, gutter, below + entry.top + entry.height / 2)
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
