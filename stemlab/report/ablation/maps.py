"""How the outcome depends on what was drawn: maps of two nuisances, lines of one. Numbers in, a figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..svg import INK, LEGEND, plain, sheet, shortened
from .looks import Look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
_COLUMNS = 4


@dataclass(frozen=True)
class Axis:
    """An axis: what is drawn, its limits, and whether its scale is logarithmic."""

    name: str
    low: float
    high: float
    log: bool

    def limits(self) -> tuple[float, float]:
        """Return the ends of the axis, a little beyond the range."""
        if self.log:
            reach = (self.high / self.low) ** 0.06
            return self.low / reach, self.high * reach
        reach = 0.06 * (self.high - self.low)
        return self.low - reach, self.high + reach


@dataclass(frozen=True)
class Draws:
    """The draws of an arm: x, y (of a map), the outcome of each, and how many of its runs diverged."""

    label: str
    x: Array
    y: Array
    value: Array
    diverged: NDArray[np.bool_]


def maps(arms: Sequence[Draws], x: Axis, y: Axis, value_label: str) -> Figure:
    """Draw a map an arm, all on one scale: a mark a draw, the darker the worse; a cross where a run diverged."""
    import matplotlib

    rows, columns = -(-len(arms) // _COLUMNS), min(_COLUMNS, len(arms))
    figure, axes = sheet(2.3 * columns + 1.0, 2.35 * rows + 0.4, rows, columns, sharex=True, sharey=True)
    known = np.concatenate([arm.value[np.isfinite(arm.value)] for arm in arms])
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    # Few enough shades that matplotlib draws their bar as paths: an image is nothing that a page may load.
    shades = matplotlib.colormaps["cividis"].resampled(32)
    options: dict[str, Any] = {"cmap": shades, "vmin": low, "vmax": high if high > low else low + 1e-9}
    for place, arm in enumerate(arms):
        axis = axes.flat[place]
        points = axis.scatter(arm.x, arm.y, c=arm.value, s=42, edgecolors=INK, linewidths=0.6, zorder=3, **options)
        axis.scatter(arm.x[arm.diverged], arm.y[arm.diverged], marker="x", s=70, c="#D55E00", linewidths=1.6, zorder=4)
        axis.set_title(shortened(arm.label, 30), fontsize=9, loc="left", parse_math=False)
        _scale(axis, x, y)
    for axis in axes.flat[len(arms) :]:
        axis.set_axis_off()
        axes.flat[len(arms) - 1].tick_params(labelbottom=True)
    figure.supxlabel(x.name, fontsize=9.5, parse_math=False)
    figure.supylabel(y.name, fontsize=9.5, parse_math=False)
    bar = figure.colorbar(points, ax=axes, label=value_label, fraction=0.04, aspect=30)
    bar.outline.set_visible(False)
    return figure


def _scale(axis: Any, x: Axis, y: Axis) -> None:
    if x.log:
        axis.set_xscale("log")
    if y.log:
        axis.set_yscale("log")
    axis.set(xlim=x.limits(), ylim=y.limits())
    axis.minorticks_off()  # they would be most of the drawing, and of its time


def against(arms: Sequence[Draws], x: Axis, value_label: str, looks: Mapping[str, Look]) -> Figure:
    """Draw the outcome against what was drawn: a line an arm through its draws, a cross where a run diverged."""
    figure, axes = sheet(7.6, 4.2)
    axis = axes[0, 0]
    axis.set(ylabel=value_label)
    axis.set_xlabel(x.name, parse_math=False)
    if x.log:
        axis.set_xscale("log")
    axis.set_xlim(x.limits())
    for arm in arms:
        order = np.argsort(arm.x, kind="stable")
        look = looks[arm.label]
        axis.plot(arm.x[order], arm.value[order], label=shortened(arm.label), markersize=5, zorder=3, **look.line)
        axis.scatter(
            arm.x[arm.diverged], arm.value[arm.diverged], marker="x", s=80, c=look.colour, linewidths=1.6, zorder=4
        )
    legend = figure.legend(loc="outside lower left", ncols=2, handlelength=3, **LEGEND)
    plain(legend.get_texts())
    return figure
