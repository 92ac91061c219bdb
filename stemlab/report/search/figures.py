"""The figures of a search. They draw numbers that are given to them and work nothing out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...records import TrialRecord
from ..svg import BLUE, GREEN, GREY, INK, LEGEND, PALE, VERMILLION, blank, plain, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[Any]
_OTHERS, _BROKEN = "the others", "diverged or failed"
_HIGHLIGHTS = ((VERMILLION, "o"), (BLUE, "D"), (GREEN, "^"))

MOST_MARKS = 1000
"""So many marks at most are drawn of what is not pointed out; more only make a page heavy."""

MOST_CURVES = 200
"""So many thin lines at most are drawn."""

COSTS = {
    "stem_flops_share": (100.0, "Stem’s share of the multiply-adds (%)"),
    "stem_flops": (1e-6, "Multiply-adds of the stem (millions)"),
}
"""What accuracy can be drawn against: the factor to the unit of the axis, and the axis label."""


def accuracy_against_cost(ranked: Any, front: NDArray[np.bool_], cost: str = "stem_flops_share") -> Figure:
    """Draw validation top-1 (%) against the stem's cost: a mark a proposal, a bar for its deviation over seeds.

    `ranked` is the frame that `stemlab.analysis.ranking.rank` gives, `front` which of its rows are on the
    Pareto front. Numbers beside marks are ranks. Rows without an accuracy are left out.
    """
    scale, name = COSTS[cost]
    x = scale * ranked[cost].to_numpy(dtype=float)
    y = 100 * ranked["top1"].to_numpy(dtype=float)
    deviation = 100 * ranked["top1_std"].to_numpy(dtype=float)
    best = np.arange(len(y)) == 0
    drawn = np.isfinite(x) & np.isfinite(y)
    drawn &= _thin(drawn & ~front & ~best, MOST_MARKS) | front | best
    figure, axes = blank(name, "Validation top-1 (%)")
    seeded = drawn & np.isfinite(deviation)
    axes.errorbar(x[seeded], y[seeded], deviation[seeded], fmt="none", ecolor=PALE, elinewidth=1.2, capsize=2.5)
    steps = np.flatnonzero(front & drawn)
    steps = steps[np.argsort(x[steps], kind="stable")]
    if len(steps) > 1:
        axes.step(x[steps], y[steps], where="post", color=BLUE, linewidth=1, linestyle=(0, (4, 2)), zorder=2)
    for which, marker, size, face, edge, text in (
        (drawn & ~front & ~best, "o", 30, "white", GREY, "dominated"),
        (drawn & front & ~best, "D", 34, BLUE, "white", "Pareto front"),
        (drawn & best, "*", 150, VERMILLION, "white", "best"),
    ):
        if which.any():
            axes.scatter(
                x[which],
                y[which],
                s=size,
                c=face,
                marker=marker,
                edgecolors=edge,
                linewidths=1,
                label=text,
                zorder=3,
            )
    for index in np.flatnonzero(drawn & (front | best)):
        at = (x[index], y[index])
        axes.annotate(str(index + 1), at, xytext=(6, 5), textcoords="offset points", fontsize=8.5, zorder=4)
    axes.margins(0.08, 0.1)
    figure.legend(loc="outside upper left", ncols=3, handletextpad=0.2, columnspacing=1.4, **LEGEND)
    return figure


def learning_curves(records: Iterable[TrialRecord], highlights: Mapping[int | None, str]) -> Figure:
    """Draw validation top-1 (%) by epoch, one line a trial.

    `highlights` maps up to three proposals to their labels; the other trials are thin and grey, diverged ones
    dashed up to a cross. Trials without a curve are left out, and of many trials all but MOST_CURVES of each kind.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = blank("Epoch", "Validation top-1 (%)")
    looks = dict(zip(highlights, _HIGHLIGHTS, strict=False))
    lines: dict[str, Any] = {}
    for record in _few(records, looks):
        x, y = _curve(record)
        if not x:
            continue
        if record.status in ("diverged", "failed"):
            text = _BROKEN
            style: dict[str, Any] = {"color": INK, "linestyle": (0, (3, 2)), "linewidth": 1, "zorder": 3}
            style |= {"marker": "x", "markevery": [-1]}
        elif record.proposal in looks:
            text = highlights[record.proposal]
            color, marker = looks[record.proposal]
            style = {"color": color, "linewidth": 1.4, "zorder": 4}
            style |= {"marker": marker, "markevery": max(1, len(x) // 8)}
        else:
            text = _OTHERS
            style = {"color": PALE, "linewidth": 0.9, "zorder": 2, "marker": "." if len(x) == 1 else ""}
        (lines[text],) = axes.plot(x, y, markersize=4.5, **style)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    names = [text for text in (*highlights.values(), _OTHERS, _BROKEN) if text in lines]
    legend = figure.legend([lines[text] for text in names], names, loc="outside lower left", **LEGEND)
    plain(legend.get_texts())
    return figure


@dataclass(frozen=True)
class Best:
    """The best so far, where it changes: name, number of proposals, hours of training, value."""

    name: str
    proposals: Array
    hours: Array
    value: Array


@dataclass(frozen=True)
class Band:
    """An expectation by number of proposals, and its limits."""

    name: str
    proposals: Array
    middle: Array
    low: Array
    high: Array


def best_so_far(searches: Sequence[Best], expected: Band | None, label: str) -> Figure:
    """Draw the best so far by proposals and by hours of training: a stepped line a search, the expectation grey."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = sheet(9.2, 4.0, 1, 2, sharey=True)
    by_number, by_hours = axes[0]
    by_number.set(xlabel="Proposals", ylabel=label)
    by_hours.set(xlabel="Hours of training")
    if expected is not None:
        by_number.fill_between(expected.proposals, expected.low, expected.high, color=GREY, alpha=0.13, linewidth=0)
        by_number.plot(
            expected.proposals, expected.middle, color=GREY, linestyle=(0, (1, 1.5)), linewidth=1.4, label=expected.name
        )
    for search, (color, marker), dashes in zip(searches, _HIGHLIGHTS, ("-", (0, (5, 2))), strict=False):
        style: Any = {"color": color, "linestyle": dashes, "linewidth": 1.6, "marker": marker, "markersize": 4}
        style |= {"drawstyle": "steps-post", "markevery": max(1, len(search.value) // 12)}
        by_number.plot(search.proposals, search.value, label=search.name, **style)
        by_hours.plot(search.hours, search.value, **style)
    by_number.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain(figure.legend(loc="outside lower left", ncols=2, handlelength=3, **LEGEND).get_texts())
    return figure


@dataclass(frozen=True)
class Axis:
    """What an axis shows: its name and a value a proposal."""

    name: str
    values: Array


def front(first: Axis, other: Axis, on_front: NDArray[np.bool_]) -> Figure:
    """Draw the first objective against another one: a mark a proposal, the front filled."""
    figure, axes = blank(other.name, first.name)
    behind = _thin(~on_front, MOST_MARKS)
    looks = ((behind, "o", 22, "white", GREY, "dominated"), (on_front, "D", 34, BLUE, "white", "Pareto front"))
    for which, marker, size, face, edge, text in looks:
        if which.any():
            x, y = other.values[which], first.values[which]
            axes.scatter(x, y, s=size, c=face, marker=marker, edgecolors=edge, linewidths=1, label=text, zorder=3)
    axes.margins(0.08, 0.1)
    figure.legend(loc="outside upper left", ncols=2, handletextpad=0.2, columnspacing=1.4, **LEGEND)
    return figure


def growth(proposals: Array, share: Array, total: int) -> Figure:
    """Draw a share (0 to 1) that grows with the number of proposals, in steps, to the last of `total` proposals."""
    figure, axes = blank("Proposals", "Hypervolume (share of the box)")
    axes.step([*proposals, total], [*share, share[-1]], where="post", color=BLUE, linewidth=1.6)
    axes.set_ylim(0, 1)
    return figure


def _thin(which: NDArray[np.bool_], most: int) -> NDArray[np.bool_]:
    """Return at most so many of the rows that are set, spread evenly."""
    rows = np.flatnonzero(which)
    kept = np.zeros(len(which), dtype=bool)
    kept[rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(int)]] = True
    return kept


def _few(records: Iterable[TrialRecord], highlighted: Mapping[int | None, Any]) -> list[TrialRecord]:
    """Return all trials that are pointed out, and of the broken and the other ones at most MOST_CURVES each."""
    records = list(records)
    out = np.array([record.proposal in highlighted for record in records], dtype=bool)
    broken = np.array([record.status in ("diverged", "failed") for record in records], dtype=bool)
    kept = out | _thin(broken & ~out, MOST_CURVES) | _thin(~broken & ~out, MOST_CURVES)
    return [record for record, keep in zip(records, kept, strict=True) if keep]


def _curve(record: TrialRecord) -> tuple[list[float], list[float]]:
    rows = [(row.get("epoch"), row.get("top1")) for row in record.curve]
    known = [(x, 100 * y) for x, y in rows if x is not None and y is not None and math.isfinite(y)]
    return [x for x, _ in known], [y for _, y in known]
