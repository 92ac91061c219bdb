"""The answer: what differs from the baseline, and what cannot be told apart from it, in a sentence or two."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ...analysis.findings import Findings
from ...analysis.resampling import least_p
from ..numbers import count
from .columns import p_value
from .design_words import listed
from .outcome import Outcome

_NAMED = 3
"""So many differences are told one by one; of more, the largest."""


def answer(found: Findings) -> Iterator[str]:
    """Yield the answer."""
    if found.frame.empty:
        yield "No trial has finished yet."
        return
    if not found.frame["value"].notna().any():
        yield f"None of {count(len(found.frame), 'trial')} ended with an outcome: there is nothing to compare yet."
        return
    said = _Said(found)
    if len(found.design.factors) > 1 and found.effects is not None:
        yield from said.effects(found.effects.frame)
    yield from said.arms()


class _Said:
    def __init__(self, found: Findings) -> None:
        self.found, self.outcome = found, Outcome(found.study.ablate.outcome)
        self.baseline = found.design.baseline.label

    def effects(self, frame: Any) -> Iterator[str]:
        """Yield a sentence about the main effects, if there are any."""
        main = frame[(frame["kind"] == "main") & frame["difference"].notna()]
        rows = main.to_dict("records")
        told = _largest_first(row for row in rows if self._differs(row))
        # Of each factor, in the order of the file, the level that does most.
        most = {row["factor"]: row for row in reversed(told)}
        named = [most[factor] for factor in dict.fromkeys(row["factor"] for row in rows) if factor in most][:_NAMED]
        clauses = [f"{row['factor']} {row['level']} instead of {row['baseline']} {self._gains(row)}" for row in named]
        if clauses:
            others = len(told) - len(named)
            more = f"; {count(others, 'more level')} {'differs' if others == 1 else 'differ'}" if others else ""
            yield f"Averaged over the other factors, {listed(clauses)}{more}."
        elif rows:
            yield (
                "Averaged over the other factors, no level of any factor can be told apart from its baseline "
                f"({_corrected(len(frame))})."
            )

    def arms(self) -> Iterator[str]:
        """Yield a sentence about the arms against the baseline."""
        comparison = self.found.comparison
        rows = [] if comparison is None else comparison.frame.dropna(subset=["difference"]).to_dict("records")
        if not rows:
            yield f"No other arm has a {self.found.unit} in common with the baseline “{self.baseline}” yet."
            return
        told = _largest_first(row for row in rows if self._differs(row))
        base = self.found.frame.loc[self.found.frame["arm"] == self.baseline]
        mean = base.groupby(self.found.unit)["value"].mean().mean()
        against = f"the baseline “{self.baseline}” ({self.outcome.said(mean)} {self.outcome.words})"
        if not told:
            yield f"Nothing can be told apart from {against}: {self._undecided(rows)}."
            return
        clauses = [f"“{row['arm']}” is {self._worse(row)}" for row in told[:_NAMED]]
        if len(told) > _NAMED:
            text = f"{len(told)} of {count(len(rows), 'arm')} differ from {against}; the furthest: {listed(clauses)}"
        else:
            text = f"Against {against}, {listed(clauses)}"
        rest = [f"“{row['arm']}”" for row in rows if row not in told]
        if rest:
            names = listed(rest) if len(rest) <= _NAMED else f"the other {len(rest)} arms"
            text += f"; {names} cannot be told apart from it"
        yield f"{text}."

    def _differs(self, row: dict[str, Any]) -> bool:
        return bool(row["p_corrected"] < self.found.level)

    def _undecided(self, rows: list[dict[str, Any]]) -> str:
        row = _largest_first(rows)[0]
        n = int(row["n"])
        p = p_value(row["p_corrected"])
        seen = f"the largest difference is {self._amount(row)}, of “{row['arm']}” (corrected p = {p})"
        if n < 2:
            return f"{seen}, and one {self.found.unit} alone says nothing of chance"
        if least_p(n, len(rows)) >= self.found.level:  # what the sign-flip test and Holm's correction can reach
            return f"{seen}; {count(n, 'pair')} are too few for any test to tell, so the intervals must speak"
        return f"{seen}, with {count(n, 'pair')}"

    def _gains(self, row: dict[str, Any]) -> str:
        way = "gains" if self.outcome.better(row["difference"]) == "better" else "costs"
        return f"{way} {self._amount(row)}"

    def _worse(self, row: dict[str, Any]) -> str:
        return f"{self._size(row)} {self.outcome.better(row['difference'])} ({self._interval(row)})"

    def _amount(self, row: dict[str, Any]) -> str:
        return f"{self._size(row)} ({self._interval(row)})"

    def _size(self, row: dict[str, Any]) -> str:
        size = self.outcome.difference(abs(row["difference"])).lstrip("+")
        return size if self.outcome.is_loss else f"{size} points"

    def _interval(self, row: dict[str, Any]) -> str:
        if not math.isfinite(row["low"]):
            return "no interval"
        return f"{self.found.study.ablate.confidence:.0%} interval {self.outcome.interval(row['low'], row['high'])}"


def _largest_first(rows: Any) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: -abs(row["difference"]))


def _corrected(tests: int) -> str:
    return f"corrected for {tests} comparisons" if tests > 1 else "one comparison"
