"""What a search has come to: the objectives' values of its proposals, and which of them lead."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..records import TrialRecord
from ..space import Hole, find
from ..spec import Objective, SearchSettings, SearchSpec
from ..spec.files import Document
from ..spec.quantity import Quantity
from .labels import shared_label
from .ranking import latest, on_front, value

COLUMNS = ("proposal", "label", "hours")
"""The columns of `values` before those of the objectives."""


def holes(study: SearchSpec) -> tuple[Hole, ...]:
    """Return the holes that a search fills; those that are drawn are not among them."""
    drawn = study.search.draws.over if study.search.draws else ()
    document = Document({"model": study.model, "data": study.data, "train": study.train}, "study.yaml")
    return tuple(hole for hole in find(document) if hole.name not in drawn)


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
    rows: list[dict[str, Any]] = [
        {
            "proposal": proposal,
            "label": shared_label(trials),
            "hours": spent[end := max(ends[proposal, trial.trial] for trial in trials)],
            "end": end,
            **{objective.metric: _value(trials, objective, settings) for objective in settings.objectives},
        }
        for proposal, trials in groups.items()
        if len(trials) >= settings.trials_each
    ]
    names = [objective.metric for objective in settings.objectives]
    frame = pd.DataFrame(sorted(rows, key=lambda row: row["end"]), columns=[*COLUMNS, *names])
    return frame.astype({"proposal": int, "hours": float, **dict.fromkeys(names, float)})


def front(frame: Any, objectives: Sequence[Objective]) -> NDArray[np.bool_]:
    """Return which rows of `values` are on the Pareto front; of one objective, which are best."""
    names = [objective.metric for objective in objectives]
    return on_front(frame[names].to_numpy(dtype=float), [objective.sign for objective in objectives])


def leading(records: Iterable[TrialRecord], settings: SearchSettings) -> list[dict[str, Any]]:
    """Return proposal, label and values of the best proposal, or of those on the front.

    They stand in the order of the objective that chooses, equals in that of proposal.
    """
    frame = values(records, settings)
    first = settings.chief
    rows = frame[front(frame, settings.objectives)].to_dict("records")
    rows.sort(key=lambda row: (-first.sign * row[first.metric], row["proposal"]))
    names = [objective.metric for objective in settings.objectives]
    found = [
        {"proposal": row["proposal"], "label": row["label"], "values": {name: row[name] for name in names}}
        for row in rows
    ]
    return found if len(names) > 1 else found[:1]


def filled(records: Iterable[TrialRecord]) -> dict[int | None, dict[str, Any]]:
    """Return proposal -> how it filled the holes: of its first trial, whose drawn holes are other in other trials."""
    found: dict[int | None, dict[str, Any]] = {}
    for record in records:
        found.setdefault(record.proposal, record.assignment)
    return found


def _value(trials: Sequence[TrialRecord], objective: Objective, settings: SearchSettings) -> float:
    name, first = objective.metric, trials[0]
    if name not in get_args(Quantity):
        return value(trials, name, objective.sign, settings.judge)
    return (
        abs(float(first.match.get("error") or 0.0)) if name == "match_error" else float(first.cost.get(name, math.nan))
    )


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
