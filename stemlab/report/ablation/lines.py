"""Lines with bands, one an arm: error distributions, learning curves, numbers by block. Numbers in, a figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..svg import LEGEND, plain, sheet, shortened
from .looks import OTHERS, Look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

MOST_BANDS = 4
"""With more lines than this, only the first (the baseline) has its band: many bands hide one another."""


@dataclass(frozen=True)
class Line:
    """One arm: its label and, for each x, the middle of a band and the band's ends (NaN where there is none)."""

    label: str
    x: Array
    middle: Array
    low: Array
    high: Array

    @classmethod
    def of(
        cls, label: str, rows: Any, x: str, scale: float = 1.0, middle: str = "middle", x_scale: float = 1.0
    ) -> Line:
        """Return the line of an arm's rows of a frame with `low` and `high`."""
        y = [scale * rows[name].to_numpy(dtype=float) for name in (middle, "low", "high")]
        return cls(label, x_scale * rows[x].to_numpy(dtype=float), *y)


@dataclass(frozen=True)
class Panel:
    """What one panel shows."""

    lines: Sequence[Line]
    x_label: str
    y_label: str
    steps: bool = False
    log: bool = False
    ticks: Sequence[str] = ()
    """What x = 0, 1, ... are called, where they are no numbers."""

    limits: tuple[float, float] | None = None
    """The ends of the y axis, where they are to be others than those of the numbers."""

    start: float | None = None
    """Where the x axis begins, where not at the first number."""


def lines(panels: Sequence[Panel], looks: Mapping[str, Look]) -> Figure:
    """Draw panels side by side with one legend: the arms of `looks` as they look, all others thin and grey.

    Of many arms, only the first has its band: see MOST_BANDS.
    """
    from matplotlib.ticker import MaxNLocator

    shown = [label for label in looks if any(line.label == label for panel in panels for line in panel.lines)]
    others = {line.label for panel in panels for line in panel.lines} - set(looks)
    entries = len(shown) + bool(others)
    width = 5.7 if len(panels) == 1 else 9.2
    columns = 1 if max(map(len, shown), default=0) > 34 else 2 if len(panels) == 1 else 3
    height = 3.5 + 0.19 * -(-entries // columns)
    figure, axes = sheet(width, height, 1, len(panels))
    handles: dict[str, Any] = {}
    for axis, panel in zip(axes[0], panels, strict=True):
        axis.set(xlabel=panel.x_label, ylabel=panel.y_label)
        if panel.log:
            axis.set_yscale("log")
        banded = shown if len(shown) <= MOST_BANDS else shown[:1]
        for line in sorted(panel.lines, key=lambda line: line.label in looks):
            handle = _draw(axis, line, panel, looks.get(line.label), line.label in banded)
            handles.setdefault(line.label if line.label in looks else "", handle)
        if panel.limits is not None:
            axis.set_ylim(panel.limits)
        if panel.start is not None:
            axis.set_xlim(left=panel.start)
        if panel.ticks:
            axis.set_xticks(range(len(panel.ticks)), panel.ticks)
            if len(panel.ticks) > 8:
                axis.set_xticks(axis.get_xticks()[:: -(-len(panel.ticks) // 8)])
        elif not panel.steps:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    names = [*shown, *([""] if others else [])]
    if len(names) == 1 and not others:
        return figure
    texts = [shortened(label) if label else f"the other {len(others)} arms" for label in names]
    legend = figure.legend(
        [handles[name] for name in names],
        texts,
        loc="outside lower left",
        ncols=columns,
        handlelength=3,
        columnspacing=1.4,
        **LEGEND,
    )
    plain(legend.get_texts())
    return figure


def _draw(axis: Any, line: Line, panel: Panel, look: Look | None, band: bool) -> Any:
    banded = np.isfinite(line.low) & np.isfinite(line.high)
    if look is not None and band and banded.any():
        step = "post" if panel.steps else None
        axis.fill_between(
            line.x[banded], line.low[banded], line.high[banded], step=step, color=look.colour, alpha=0.13, linewidth=0
        )
    style = look.line if look else {"color": OTHERS.colour, "linewidth": 0.8}
    if look is not None:
        # Marks at places of their own, so that those of lines that run together do not hide one another.
        every = max(1, len(line.x) // 6)
        shift = sum(map(ord, look.marker)) % every
        style |= {"markevery": (shift, every), "markersize": 5.5, "markeredgewidth": 0.5, "markeredgecolor": "white"}
    how = {"drawstyle": "steps-post"} if panel.steps else {}
    (handle,) = axis.plot(line.x, line.middle, zorder=3 if look else 2, **style, **how)
    return handle
