"""The tables of an ablation: what is shown of each result, and how it is rounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..numbers import GAP, number, percent, quantity, signed
from ..tables import Column, Table

Row = Mapping[str, Any]


def p_value(p: float) -> str:
    """Return a p-value in two significant digits: 0.034, < 0.001."""
    if not math.isfinite(p):
        return GAP
    return "< 0.001" if p < 0.001 else f"{p:.1g}" if p > 0.95 else f"{p:.2g}"


def text(name: str, heading: str) -> Column:
    """Return a column of words."""
    return Column(heading, lambda row: _words(row[name]), text=True)


def numbers(name: str, heading: str, show: Callable[[float], str]) -> Column:
    """Return a column of numbers."""
    return Column(heading, lambda row: show(_number(row.get(name))))


def whole(name: str, heading: str) -> Column:
    """Return a column of counts."""
    return numbers(name, heading, lambda value: number(value, ".0f"))


def spread(heading: str, show: Callable[[float, float], str]) -> Column:
    """Return a column of intervals, from `low` to `high`."""
    return Column(heading, lambda row: show(_number(row.get("low")), _number(row.get("high"))))


def _words(value: Any) -> str:
    return GAP if value is None or value != value else str(value) or GAP


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def costs_table(result: Any, baseline: str) -> Table:
    """Return the table of costs."""
    return Table.of(
        "costs",
        result,
        [
            text("arm", "Arm"),
            numbers("flops", "Multiply-adds", quantity),
            numbers("params", "Parameters", quantity),
            numbers("activations", "Activations", quantity),
            numbers("stem_flops_share", "Stem’s share (%)", percent),
            numbers("match_error", "Match error (%)", signed),
            numbers("match_error_most", "Largest match error (%)", signed),
            numbers("seconds", "Time (s)", lambda value: number(value, ".1f")),
        ],
        mark=lambda row: "baseline" if row["arm"] == baseline else "",
    )


def probes_table(result: Any) -> Table:
    """Return the table of scalar probes."""

    def plain(value: float) -> str:
        return number(value, ".3g")

    return Table.of(
        "probes",
        result,
        [
            text("probe", "Probe"),
            text("arm", "Arm"),
            numbers("mean", "Mean", plain),
            spread(
                "Interval",
                lambda low, high: f"{plain(low)} to {plain(high)}" if math.isfinite(low) else GAP,
            ),
            whole("units", "n"),
        ],
    )
