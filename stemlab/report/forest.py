"""Forest plots: estimates with their intervals, one below the other. Numbers in, a figure out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .svg import BLUE, GREY, INK, PALE, VERMILLION, plain, sheet, shortened

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
    """Draw estimates against 0, with a filled mark where they are told apart from it and a hollow one where not.

    An interval that goes far beyond all estimates ends in an arrow. `better` says which way is better, at the foot.
    """
    figure, axes = sheet(7.6, 0.9 + 0.27 * len(rows))
    axis = axes[0, 0]
    axis.set(xlabel=x_label + (f"  ({better})" if better else ""))
    axis.axvline(0, color=GREY, linewidth=1)
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)
    low, high = _limits(rows)
    axis.set_xlim(low, high)
    for place, row in enumerate(rows):
        colour = (BLUE if row.value > 0 else VERMILLION) if row.differs else INK
        if math.isfinite(row.low) and math.isfinite(row.high):
            ends = [max(row.low, low), min(row.high, high)]
            axis.plot(ends, [place, place], color=colour, linewidth=1.6 if row.differs else 1.1)
            for end, marker, beyond in ((low, "<", row.low < low), (high, ">", row.high > high)):
                if beyond:
                    axis.plot(end, place, marker, color=colour, markersize=6, clip_on=False)
        if math.isfinite(row.value):
            marker = ("^" if row.value > 0 else "v") if row.differs else "o"
            face = colour if row.differs else "white"
            axis.plot(row.value, place, marker, color=colour, markerfacecolor=face, markersize=6, zorder=3)
        elif place:
            axis.axhline(place - 0.5, color=PALE, linewidth=0.7)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_yticks(range(len(rows)), [shortened(row.label) for row in rows])
    plain(axis.get_yticklabels())
    for label, row in zip(axis.get_yticklabels(), rows, strict=True):
        if not math.isfinite(row.value):
            label.set_fontweight("bold")
    return figure


def _limits(rows: Sequence[Estimate]) -> tuple[float, float]:
    """Return the ends of the axis: all estimates, 0, and all intervals but those that would dwarf the rest."""
    values = [0.0, *(row.value for row in rows if math.isfinite(row.value))]
    least, most = min(values), max(values)
    reach = max(most - least, *(1.5 * length for length in _middle_lengths(rows)), 1e-12)
    ends = [end for row in rows for end in (row.low, row.high) if math.isfinite(end)]
    low = max(min([least, *ends]), least - reach / 2)
    high = min(max([most, *ends]), most + reach / 2)
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin


def _middle_lengths(rows: Sequence[Estimate]) -> list[float]:
    lengths = sorted(row.high - row.low for row in rows if math.isfinite(row.high - row.low))
    return lengths[(len(lengths) - 1) // 2 :][:1]
