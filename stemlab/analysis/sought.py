"""What a search has come to: the objectives' values of its proposals, and which of them lead."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..records import TrialRecord
from ..spec import Objective, SearchSettings
from ..spec.quantity import Quantity
from . import pareto
from .judging import judged
from .labels import shared_label
from .ranking import latest

COLUMNS = ("proposal", "label", "hours")
"""The columns of `values` before those of the objectives."""

_PART = 300


def values(records: Iterable[TrialRecord], settings: SearchSettings) -> Any:
    """Return a DataFrame with one row a proposal all of whose trials have ended: proposal, label, hours, objectives.

    `hours` is how much training the search had done when the proposal was, that of all its trials added up; the rows
    are in that order. An objective has no value (NaN) where a trial was stopped early or not trained, and where those
    that diverged or failed leave it without one (`stemlab.analysis.judging`).
    """
    records = list(records)
    ends, spent = _ends(records)
    groups: dict[int, list[TrialRecord]] = {}
    for record in latest(records):
        if record.proposal is not None:
            groups.setdefault(record.proposal, []).append(record)
    each = len(settings.seeds) * (settings.draws.count if settings.draws else 1)
    rows = [
        {
            "proposal": proposal,
            "label": shared_label(trials),
            "hours": spent[end := max(ends[proposal, trial.trial] for trial in trials)],
            "end": end,
            **{objective.metric: _value(trials, objective, settings) for objective in settings.objectives},
        }
        for proposal, trials in groups.items()
        if len(trials) >= each
    ]
    names = [objective.metric for objective in settings.objectives]
    frame = pd.DataFrame(sorted(rows, key=lambda row: row["end"]), columns=[*COLUMNS, *names])
    return frame.astype({"proposal": int, "hours": float, **dict.fromkeys(names, float)})


def front(frame: Any, objectives: Sequence[Objective]) -> NDArray[np.bool_]:
    """Return which rows of `values` are on the Pareto front; of one objective, which are best."""
    signs = [objective.sign for objective in objectives]
    table = frame[[objective.metric for objective in objectives]].to_numpy(dtype=float)
    # What a part's front leaves out is on no front; so of many rows few are compared with one another.
    parts = np.array_split(np.arange(len(table)), max(1, len(table) // _PART))
    left = np.concatenate([part[pareto.front(table[part], signs)] for part in parts])
    found = np.zeros(len(table), dtype=bool)
    found[left[pareto.front(table[left], signs)]] = True
    return found


def leading(records: Iterable[TrialRecord], settings: SearchSettings) -> list[dict[str, Any]]:
    """Return proposal, label and values of the best proposal, or of those on the front, best in the first objective
    first; equals stand in the order of proposal."""
    frame = values(records, settings)
    first = settings.objectives[0]
    rows = frame[front(frame, settings.objectives)].to_dict("records")
    rows.sort(key=lambda row: (-first.sign * row[first.metric], row["proposal"]))
    names = [objective.metric for objective in settings.objectives]
    found = [
        {"proposal": row["proposal"], "label": row["label"], "values": {name: row[name] for name in names}}
        for row in rows
    ]
    return found if len(names) > 1 else found[:1]


def _value(trials: Sequence[TrialRecord], objective: Objective, settings: SearchSettings) -> float:
    if any(trial.status in ("pruned", "infeasible") for trial in trials):
        return math.nan
    name = objective.metric
    if name == "match_error":
        return abs(float(trials[0].match.get("error") or 0.0))
    if name in get_args(Quantity):
        return float(trials[0].cost.get(name, math.nan))
    each = [trial.metrics.get(name) if trial.status == "ok" else None for trial in trials]
    value = judged(each, settings.judge, objective.sign)
    return math.nan if value is None else value


def _ends(records: Sequence[TrialRecord]) -> tuple[dict[tuple[int | None, str], int], list[float]]:
    """Return which record is the last of each trial, and the hours of training behind each record.

    A trial that went on says how long it has taken in all, so only what came on top counts again.
    """
    ends: dict[tuple[int | None, str], int] = {}
    before: dict[tuple[int | None, str], float] = {}
    added = np.zeros(len(records))
    for place, record in enumerate(records):
        key = record.proposal, record.trial
        seconds = float(record.metrics.get("seconds", 0.0))
        added[place] = max(0.0, seconds - before.get(key, 0.0))
        before[key], ends[key] = seconds, place
    return ends, [float(hours) for hours in np.cumsum(added) / 3600]
