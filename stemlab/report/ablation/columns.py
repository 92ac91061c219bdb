"""The tables of an ablation: what is shown of each result, and how it is rounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ...analysis.claims import COSTS
from ...analysis.result import Result
from ..numbers import GAP, number, percent, quantity, signed
from ..tables import Column, Table
from .outcome import Outcome

Row = Mapping[str, Any]

_BROKEN = 12


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


def interval(outcome: Outcome, confidence: float) -> Column:
    """Return the column of a difference's interval."""
    return spread(f"{confidence:.0%} interval", outcome.interval)


def comparison_table(result: Result, outcome: Outcome, confidence: float, baseline: str, mean: float) -> Table:
    """Return the table of arms against the baseline, which has the `mean` and stands first."""
    table = Table.of(
        "arms",
        result,
        [
            text("arm", "Arm"),
            numbers("mean", outcome.axis, outcome.value),
            numbers("baseline_mean", "Baseline, same pairs", outcome.value),
            numbers("difference", f"Difference ({outcome.points})", outcome.difference),
            interval(outcome, confidence),
            numbers("better", "Larger in (% of pairs)", lambda share: number(100 * share, ".0f")),
            whole("n", "Pairs"),
            numbers("p", "p", p_value),
            numbers("p_corrected", "p corrected", p_value),
        ],
        mark=lambda row: "told" if row["p_corrected"] < 1 - confidence else "",
        title="Every arm against the baseline",
    )
    first = (baseline, outcome.value(mean), *[GAP] * (len(table.columns) - 2))
    return replace(table, rows=(first, *table.rows), marks=("baseline", *table.marks))


def effects_table(result: Result, outcome: Outcome, confidence: float) -> Table:
    """Return the table of main effects and interactions."""
    return Table.of(
        "effects",
        result,
        [
            text("factor", "Factor"),
            text("level", "Level"),
            text("baseline", "Instead of"),
            numbers("difference", f"Difference ({outcome.points})", outcome.difference),
            interval(outcome, confidence),
            whole("n", "Pairs"),
            numbers("p", "p", p_value),
            numbers("p_corrected", "p corrected", p_value),
        ],
        mark=lambda row: "told" if row["p_corrected"] < 1 - confidence else "",
        title="Main effects and interactions",
    )


VERDICTS = (("opposite", "opposite"), ("not reproduced", "against"), ("reproduced", "reproduced"))
"""How a verdict begins or what it holds, and the word of style of its row."""


def claims_table(result: Result, confidence: float) -> Table:
    """Return the table of claims, in the units of the records and of the study file."""

    def plain(value: float) -> str:
        return quantity(value) if abs(value) >= 1e4 else number(value, "+.3g")

    def ends(row: Row) -> str:
        return "exact" if row["measure"] in COSTS else _to(plain(_number(row["low"])), plain(_number(row["high"])))

    return Table.of(
        "claims",
        result,
        [
            text("claim", "Claim"),
            Column("What the paper says", lambda row: f"{row['says']} {_source(row)}".strip(), text=True),
            text("measure", "Measure"),
            Column("Expected", lambda row: str(row["expected"]).replace("-", "−"), text=True),
            numbers("estimate", "Seen", plain),
            Column(f"{confidence:.0%} interval", ends),
            whole("n", "Pairs"),
            text("verdict", "Verdict"),
        ],
        mark=lambda row: next((word for said, word in VERDICTS if said in row["verdict"]), "undecided"),
        title="Claims",
    )


def _source(row: Row) -> str:
    return f"({row['source']})" if isinstance(row["source"], str) else ""


def sensitivity_table(result: Result) -> Table:
    """Return the shares of variance, an arm a row, a parameter a column."""

    def cell(row: Row) -> str:
        share, low, high = (number(100 * row[end], ".0f") for end in ("share", "low", "high"))
        return GAP if share == GAP else f"{share} ({low} to {high})"

    return _crossed("sensitivity", "Share of the variance (%)", result, "parameter", cell, " (%)")


def _crossed(name: str, title: str, result: Result, across: str, cell: Callable[[Row], str], unit: str = "") -> Table:
    """Return a table with an arm a row, and what the column `across` holds side by side, `unit` behind its name."""
    frame = result.frame
    names, arms = (list(dict.fromkeys(frame[column])) for column in (across, "arm"))
    found = {(row["arm"], row[across]): cell(row) for row in frame.to_dict("records")}
    return Table(
        name=name,
        title=title,
        columns=(text("arm", "Arm"), *(text(str(key), str(key).replace("_", " ") + unit) for key in names)),
        rows=tuple((str(arm), *(found.get((arm, key), GAP) for key in names)) for arm in arms),
        marks=("",) * len(arms),
        method=result.method,
        frame=frame,
    )


def budgets_table(result: Result, title: str) -> Table:
    """Return rank correlations along the budget: ten at most, evenly spaced, the last among them."""
    step = -(-len(result.frame) // 10)
    shown = [row for row in range(len(result.frame)) if (len(result.frame) - 1 - row) % step == 0]
    table = Table.of(
        "ranks_by_epoch",
        replace(result, frame=result.frame.iloc[shown]),
        [
            whole("epoch", "Epoch"),
            numbers("share", "Of the budget (%)", lambda share: number(100 * share, ".0f")),
            numbers("tau", "Kendall’s τ", _tau),
            spread("Interval", lambda low, high: _to(_tau(low), _tau(high))),
            whole("units", "Units"),
        ],
        title=title,
    )
    return replace(table, frame=result.frame)


def _tau(value: float) -> str:
    return number(value, ".2f")


def schedules_table(result: Result) -> Table:
    """Return rank correlations between schedules."""
    return Table.of(
        "ranks_by_schedule",
        result,
        [
            text("first", "Schedule"),
            text("second", "Against"),
            numbers("tau", "Kendall’s τ", _tau),
            spread("Interval", lambda low, high: _to(_tau(low), _tau(high))),
            whole("arms", "Settings"),
            whole("units", "Units"),
        ],
    )


def gaps_table(result: Result, outcome: Outcome, confidence: float) -> Table:
    """Return how much shorter schedules fall short of the longest."""
    schedule = str(result.frame.columns[1])
    return Table.of(
        "gaps",
        result,
        [
            text("setting", "Setting"),
            text(schedule, schedule.capitalize()),
            text("longest", "Longest"),
            numbers("gap", f"Gap ({outcome.points})", outcome.difference),
            interval(outcome, confidence),
            whole("n", "Pairs"),
        ],
    )


def costs_table(result: Result, baseline: str) -> Table:
    """Return the table of costs; columns that no arm has are left out."""
    matched = [
        numbers("match_error", "Match error (%)", signed),
        numbers("match_error_most", "Largest match error (%)", signed),
    ]
    return Table.of(
        "costs",
        result,
        [
            text("arm", "Arm"),
            numbers("flops", "Multiply-adds", quantity),
            numbers("params", "Parameters", quantity),
            numbers("activations", "Activations", quantity),
            numbers("stem_flops_share", "Stem’s share (%)", percent),
            *(matched if result.frame["match_error"].notna().any() else []),
            numbers("seconds", "Time (s)", lambda value: number(value, ".1f")),
        ],
        mark=lambda row: "baseline" if row["arm"] == baseline else "",
    )


def probes_table(result: Result) -> Table:
    """Return the means of scalar probes, an arm a row, a probe a column."""

    def cell(row: Row) -> str:
        mean, low, high = (number(row[name], ".3g") for name in ("mean", "low", "high"))
        return mean if low == GAP else f"{mean} ({low} to {high})"

    return _crossed("probes", result.title, result, "probe", cell)


def divergence_table(result: Result, confidence: float, baseline: str) -> Table:
    """Return the table of divergences."""

    def rate(share: float) -> str:
        return number(100 * share, ".1f")

    return Table.of(
        "divergence",
        result,
        [
            text("arm", "Arm"),
            whole("runs", "Runs"),
            whole("diverged", "Diverged"),
            numbers("rate", "Rate (%)", rate),
            spread(f"{confidence:.0%} interval", lambda low, high: _to(rate(low), rate(high))),
            numbers("difference", "Against the baseline (points)", lambda share: number(100 * share, "+.1f")),
            numbers("p", "p", p_value),
            numbers("p_corrected", "p corrected", p_value),
            whole("failed", "Failed"),
        ],
        mark=lambda row: "baseline" if row["arm"] == baseline else "",
        title="Runs that diverged",
    )


def broken_table(frame: Any) -> Table:
    """Return the table of trials that diverged or failed, of which the first are shown; `frame` has a row for each."""
    names = ["arm", "draw", "seed", "status", "trial", "message"]
    more = f" {len(frame) - _BROKEN} more are in tables/broken.csv." if len(frame) > _BROKEN else ""
    result = Result(
        "Which trials, and how they ended", frame[names], f"A trial’s files are in trials/ of the study.{more}"
    )
    table = Table.of(
        "broken",
        replace(result, frame=frame[names].head(_BROKEN)),
        [
            text("arm", "Arm"),
            whole("draw", "Draw"),
            whole("seed", "Seed"),
            text("status", "Status"),
            text("trial", "Trial"),
            text("message", "Message"),
        ],
    )
    return replace(table, frame=frame[names])


def power_table(result: Result, outcome: Outcome, unit: str) -> Table:
    """Return the table of units needed."""
    return Table.of(
        "power",
        result,
        [
            text("arm", "Arm"),
            numbers("difference", f"Difference seen ({outcome.points})", outcome.difference),
            numbers("std", f"Its spread over {unit}s", lambda value: outcome.difference(value).lstrip("+")),
            whole("n", f"{unit.capitalize()}s there were"),
            numbers("needed", f"{unit.capitalize()}s needed", _pairs),
            numbers("least_difference", f"If it is only ({outcome.points})", outcome.difference),
            numbers("needed_for_least", f"{unit.capitalize()}s needed then", _pairs),
        ],
        title=f"{unit.capitalize()}s needed",
    )


def _pairs(count: float) -> str:
    if math.isinf(count):
        return "∞"
    return quantity(count) if count >= 1e4 else number(count, ".0f")


def distributions_table(result: Result, outcome: Outcome, confidence: float) -> Table:
    """Return the table of error distributions against the baseline's."""
    return Table.of(
        "distributions",
        result,
        [
            text("arm", "Arm"),
            numbers("area", f"Area between ({outcome.points})", outcome.difference),
            _interval_of("area", outcome, confidence),
            numbers("q50", f"Median error ({outcome.points})", outcome.difference),
            _interval_of("q50", outcome, confidence),
            numbers("distance", "Largest gap", lambda value: number(value, ".2f")),
            whole("n", "Pairs"),
            numbers("p", "p", p_value),
            numbers("p_corrected", "p corrected", p_value),
        ],
        mark=lambda row: "told" if row["p_corrected"] < 1 - confidence else "",
        title="Error distributions against the baseline’s",
    )


def _interval_of(name: str, outcome: Outcome, confidence: float) -> Column:
    return Column(
        f"{confidence:.0%} interval",
        lambda row: outcome.interval(_number(row[f"{name}_low"]), _number(row[f"{name}_high"])),
    )


def _to(low: str, high: str) -> str:
    return GAP if GAP in (low, high) else f"{low} to {high}"
