"""The figures of a search. They draw numbers that are given to them and work nothing out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...records import TrialRecord
from ..svg import BLUE, GREEN, GREY, INK, LEGEND, PALE, VERMILLION, blank, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OTHERS, _BROKEN = "the others", "diverged or failed"
_HIGHLIGHTS = ((VERMILLION, "o"), (BLUE, "D"), (GREEN, "^"))

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
    drawn = np.isfinite(x) & np.isfinite(y)
    best = np.arange(len(y)) == 0
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
    dashed up to a cross. Trials without a curve are left out.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = blank("Epoch", "Validation top-1 (%)")
    looks = dict(zip(highlights, _HIGHLIGHTS, strict=False))
    lines: dict[str, Any] = {}
    for record in records:
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


def _curve(record: TrialRecord) -> tuple[list[float], list[float]]:
    rows = [(row.get("epoch"), row.get("top1")) for row in record.curve]
    known = [(x, 100 * y) for x, y in rows if x is not None and y is not None and math.isfinite(y)]
    return [x for x, _ in known], [y for _, y in known]
