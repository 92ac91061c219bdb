"""Which proposal is best: records as a table, ranked by the validation part.

The test part is reported beside it and never chooses.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import SpecError, nearest, one_of
from ..records import TrialRecord
from ..spec.latency import Latency
from ..spec.search import Judge
from .judging import judged
from .labels import compact, shared_label
from .pareto import front as pareto_front

VALIDATION_METRICS = ("top1", "top1_error", "loss")
"""What may rank: measured on the validation part. top1 and top1_error lie between 0 and 1."""

LATENCIES = get_args(Latency)
_MEANS = (*VALIDATION_METRICS, "test_top1", "test_loss", "seconds")
_COSTS = ("flops", "params", "stem_flops", "stem_flops_share")
_STATUSES = ("ok", "pruned", "infeasible", "diverged", "failed")
_RANKED = (
    "proposal", "label", "status", "seeds", "runs", "judged",
    *_MEANS, *(f"{name}_std" for name in VALIDATION_METRICS), *LATENCIES, *_COSTS, "match_error",
)  # fmt: skip

_PART = 300


def latest(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Return one record a trial: one that was run again counts by its last, in its first one's place."""
    return list({(record.proposal, record.trial): record for record in records}.values())


def to_frame(records: Iterable[TrialRecord]) -> Any:
    """Return a DataFrame with one row a trial: identity, filled holes, metrics, cost, match and error.

    A hole filled with a list or a mapping is given as compact JSON, so that every cell can be compared.
    """
    first = ("trial", "status", "proposal", "seed")
    last = ("match_error", "depth", "mlp_hidden", "error")
    rows = [
        {
            **{name: getattr(record, name) for name in first},
            **{path: compact(value) for path, value in record.assignment.items()},
            **record.metrics,
            **record.cost,
            "match_error": record.match.get("error"),
            "depth": record.match.get("depth"),
            "mlp_hidden": record.match.get("mlp_hidden"),
            "error": record.error,
        }
        for record in latest(records)
    ]
    middle = dict.fromkeys(name for row in rows for name in row if name not in (*first, *last))
    frame = pd.DataFrame(rows, columns=[*first, *middle, *last])
    return frame.astype({"proposal": "Int64", "match_error": float})


def rank(records: Iterable[TrialRecord], metric: str, sign: int, judge: Judge | None = None) -> Any:
    """Return a DataFrame with one row a proposal, best first. `sign` is -1 where less is better, else 1.

    Metrics and `seconds` are means over the `seeds` trials that were trained and did not diverge or fail, of `runs` in
    all; `*_std` is their sample standard deviation (missing with one seed); latencies are means over all trials.
    `status` is the worst of the trials'. `judged` is what the proposal is judged by (`stemlab.analysis.judging`),
    missing where a trial was stopped early or not trained, or leaves it without. Those that have it come first; then
    by status, and of each those with fewer runs than others (an interrupted study has them) come last; equals stand in
    the order of proposal.
    """
    if metric not in VALIDATION_METRICS:
        raise SpecError(
            f"metric (={metric!r}) cannot rank; expected {one_of(VALIDATION_METRICS)}, measured on the "
            f"validation part{nearest(metric, VALIDATION_METRICS)}"
        )
    groups: dict[Any, list[TrialRecord]] = {}
    for record in latest(records):
        # A trial that belongs to no proposal is grouped with its other seeds.
        same = json.dumps([record.model, record.data, record.train], sort_keys=True)
        groups.setdefault(same if record.proposal is None else record.proposal, []).append(record)

    def place(row: dict[str, Any]) -> tuple[Any, ...]:
        value = row[metric] if math.isnan(row["judged"]) else row["judged"]
        unknown = math.isnan(value)
        order = math.inf if row["proposal"] is None else row["proposal"]
        is_judged = math.isfinite(row["judged"])
        status = 0 if is_judged else _STATUSES.index(row["status"])
        return (not is_judged, status, row["runs"] < most, unknown, 0.0 if unknown else -sign * value, order)

    most = max(map(len, groups.values()), default=0)
    rows = sorted((_row(trials, metric, sign, judge) for trials in groups.values()), key=place)
    return pd.DataFrame(rows, columns=list(_RANKED)).astype({"proposal": "Int64"})


def best(records: Iterable[TrialRecord], metric: str, sign: int, judge: Judge | None = None) -> int | None:
    """Return the best proposal's number; None where no proposal has a value to be judged by."""
    ranked = rank(records, metric, sign, judge)
    ranked = ranked[ranked["judged"].notna() & ranked["proposal"].notna()]
    return None if ranked.empty else int(ranked["proposal"].iloc[0])


def pareto(frame: Any, cost: str, metric: str, sign: int) -> NDArray[np.bool_]:
    """Return which rows are dominated by none: no other is as cheap and as good, and cheaper or better.

    A row that lacks the cost or the metric is never on the front.
    """
    return on_front(frame[[cost, metric]].to_numpy(dtype=float), (-1, sign))


def on_front(values: NDArray[np.float64], signs: Sequence[int]) -> NDArray[np.bool_]:
    """Return which rows of (proposals, objectives) are on the Pareto front (`stemlab.analysis.pareto`)."""
    # What the front of a part leaves out is on no front; so of many rows few are compared with one another.
    parts = np.array_split(np.arange(len(values)), max(1, len(values) // _PART))
    left = np.concatenate([part[pareto_front(values[part], signs)] for part in parts])
    found = np.zeros(len(values), dtype=bool)
    found[left[pareto_front(values[left], signs)]] = True
    return found


def value(trials: Sequence[TrialRecord], metric: str, sign: int, judge: Judge | None) -> float:
    """Return what a proposal is judged by: NaN where a trial was stopped early or not trained, or leaves it without."""
    if any(trial.status in ("pruned", "infeasible") for trial in trials):
        return math.nan
    return _number(judged([t.metrics.get(metric) if t.status == "ok" else None for t in trials], judge, sign))


def _row(trials: list[TrialRecord], metric: str, sign: int, judge: Judge | None) -> dict[str, Any]:
    whole = [trial for trial in trials if trial.status in ("ok", "pruned")]
    first = trials[0]
    row: dict[str, Any] = {
        "proposal": first.proposal,
        "label": shared_label(trials),
        "status": max((trial.status for trial in trials), key=_STATUSES.index),
        "seeds": len(whole),
        "runs": len(trials),
        "judged": value(trials, metric, sign, judge),
        **{name: _mean(trial.metrics.get(name) for trial in trials) for name in LATENCIES},
        "match_error": _number(first.match.get("error")),
        **{name: _number(first.cost.get(name)) for name in _COSTS},
    }
    for name in _MEANS:
        values = _finite(trial.metrics.get(name) for trial in whole)
        row[name] = _mean(values)
        if name in VALIDATION_METRICS:
            row[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else math.nan
    return row


def _finite(values: Iterable[Any]) -> list[float]:
    return [value for value in map(_number, values) if math.isfinite(value)]


def _mean(values: Iterable[Any]) -> float:
    known = _finite(values)
    return statistics.fmean(known) if known else math.nan


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
