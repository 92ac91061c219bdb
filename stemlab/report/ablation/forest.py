"""Forest plots: estimates with their intervals, one below the other. Numbers in, a figure out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..svg import BLUE, GREY, INK, PALE, VERMILLION, sheet
from .lines import shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Estimate:
    """One row: what it is, the estimate, its interval, and whether it is told apart from nothing.

    A row without numbers is a heading of those below it.
    """

    label: str
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    differs: bool = False


def forest(rows: Sequence[Estimate], x_label: str, better: str = "") -> Figure:
    """Draw estimates against 0: a filled mark where the interval keeps clear of it, a hollow one where it does not.

    `better` says which way is better, at the foot.
    """
    figure, axes = sheet(7.6, 0.9 + 0.27 * len(rows))
    axis = axes[0, 0]
    axis.set(xlabel=x_label + (f"  ({better})" if better else ""))
    axis.axvline(0, color=GREY, linewidth=1)
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)
    for place, row in enumerate(rows):
        colour = (BLUE if row.value > 0 else VERMILLION) if row.differs else INK
        if math.isfinite(row.low) and math.isfinite(row.high):
            axis.plot([row.low, row.high], [place, place], color=colour, linewidth=1.6 if row.differs else 1.1)
        if math.isfinite(row.value):
            marker = ("^" if row.value > 0 else "v") if row.differs else "o"
            face = colour if row.differs else "white"
            axis.plot(row.value, place, marker, color=colour, markerfacecolor=face, markersize=6, zorder=3)
        elif place:
            axis.axhline(place - 0.5, color=PALE, linewidth=0.7)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_yticks(range(len(rows)), [shortened(row.label) for row in rows])
    for label, row in zip(axis.get_yticklabels(), rows, strict=True):
        label.set_parse_math(False)
        if not math.isfinite(row.value):
            label.set_fontweight("bold")
    return figure
