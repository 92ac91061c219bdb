"""The whole picture: stems side by side on one scale, each from the image at the top to the tokens."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import SpecError
from ..quantities import human
from ..spec.layers import Counts, ParallelLayer, Trace
from .canvas import Canvas
from .column import Column
from .flow import Scale
from .gutter import MapScale
from .style import SOFT
from .text import clean, wrap

_MARGIN, _BETWEEN, _BELOW, _SMALL = 18.0, 34.0, 24.0, 9.5


def diagram(
    traces: Trace | Sequence[Trace],
    titles: str | Sequence[str] | None = None,
    notes: str | Sequence[str] | None = None,
    broadest: float = 1700.0,
) -> str:
    """Return the picture of stems, given by their traces, as a self-contained SVG document.

    Each stem is a column, all on one scale: boxes are wider the more channels they give; beside each row stand the
    map it gives, its total stride, its receptive field in pixels, and its share of the stem's flops. `titles` and
    `notes` (a line below the title) are one for each stem; stems stand in rows that are at most so many pixels
    `broadest`. The same stems give the same text. Needs no torch.
    """
    if isinstance(traces, Trace):
        traces = [traces]
    columns = list(traces)
    if not columns:
        raise SpecError("a diagram needs at least one stem")
    heads = list(zip(columns, _each(titles, len(columns), "title"), _each(notes, len(columns), "note"), strict=True))
    scale, maps = Scale.of(columns), MapScale.of(columns)
    most = Counts(*map(max, zip(*(trace.counts for trace in columns), strict=True))) if len(columns) > 1 else None
    made = [Column(trace, title, note, scale, maps, most) for trace, title, note in heads]
    longest = max([1, *(row.flops for column in made for row in column.rows)])

    canvas = Canvas()
    y, right = _MARGIN, 0.0
    for row in _rows(made, broadest):
        end = _draw_row(canvas, row, y, longest)
        right = max(right, sum(column.width + _BETWEEN for column in row) - _BETWEEN)
        y = end + _BELOW
    y -= 8
    for line in wrap(_legend(made, longest), " · ", right, _SMALL, most=4):
        canvas.text(_MARGIN, y, line, _SMALL, SOFT)
        y += 13
    names = " and ".join(column.title for column in made if column.title)
    return canvas.svg(
        right + 2 * _MARGIN,
        y + _MARGIN - 12,
        f"Diagram of {names}" if names else "Diagram of a stem",
        " ".join(column.words() for column in made),
    )


def _rows(columns: Sequence[Column], broadest: float) -> list[list[Column]]:
    """Return the columns in rows no broader than that, but for a single column that is."""
    rows: list[list[Column]] = []
    taken = 0.0
    for column in columns:
        taken += _BETWEEN + column.width
        if not rows or taken > broadest:
            rows.append([])
            taken = column.width
        rows[-1].append(column)
    return rows


def _draw_row(canvas: Canvas, columns: Sequence[Column], y: float, longest: int) -> float:
    """Draw stems side by side below y; return where they end."""
    noted = any(column.note for column in columns)
    top = y + (50 if noted else 33)
    foot = top + max(column.height for column in columns) + 16
    x = _MARGIN
    for column in columns:
        column.draw(canvas, x, y, top, foot, longest)
        x += column.width + _BETWEEN
    return foot + max(column.totals.height for column in columns)


def _each(given: str | Sequence[str] | None, count: int, what: str) -> list[str]:
    texts = [""] * count if given is None else [given] if isinstance(given, str) else list(given)
    if len(texts) != count:
        raise SpecError(f"{what}s has {len(texts)} values for {count} stems; give one {what} for each")
    return [clean(text) for text in texts]


def _legend(columns: Sequence[Column], longest: int) -> list[str]:
    layers = [step.layer for column in columns for step in column.trace.all_steps()]
    repeats = any(column.stack.brackets for column in columns)
    merges = {layer.merge for layer in layers if isinstance(layer, ParallelLayer)}
    signs = {"sum": "+ sum", "mul": "× product", "concat": "‖ concatenation"}
    return [
        "wider box, deeper map: more channels",
        "front of a map: height × width",
        *(["↓2 stride 2"] if any(layer.window[2:] != (1, 1) for layer in layers) else []),
        *(sign for merge, sign in signs.items() if merge in merges),
        *(["×n: n times, counted together"] if repeats else []),
        f"bars: flops (multiply-adds), the longest {human(longest)}",
        "% of the stem’s flops",
    ]
