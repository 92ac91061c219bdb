"""The records of an ablation as a table, one row a trial: arm, factors, draws, outcome."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, get_args

import pandas as pd

from ..design import Design
from ..errors import StudyError
from ..records import TrialRecord
from ..spec import DataSpec, ProbeSpec
from ..spec.quantity import Quantity
from .ranking import latest

_METRICS = (
    "value", "error", "diverged",
    "top1", "top1_error", "loss", "test_top1", "test_loss", "seconds", "images_per_second",
)  # fmt: skip


def measures(probes: ProbeSpec | None) -> tuple[str, ...]:
    """Return what a claim may measure in a study: metrics, costs, and the numbers of its probes."""
    return (*_METRICS, *get_args(Quantity), "depth", "mlp_hidden", *(probes.numbers if probes else ()))


def results(design: Design, outcome: str, records: Iterable[TrialRecord]) -> Any:
    """Return a DataFrame with one row a trial.

    `arm`, a column for each factor (missing where an arm does not open it) and each nuisance, `draw`, `seed`, `trial`,
    `status`; `value`: the outcome, for a diverged trial that of guessing (a diverged run is worth no more), missing
    for a failed one; `error`: what error distributions are made of, 1 - accuracy or the loss, infinite for a diverged
    trial; then metrics, cost, match and probes.
    """
    rows = []
    for record in latest(records):
        row = _place(design, record)
        value, error = _outcome(record, outcome)
        rows.append(
            {
                **row,
                "trial": record.trial,
                "status": record.status,
                "value": value,
                "error": error,
                **record.metrics,
                **record.cost,
                "match_error": record.match.get("error"),
                "depth": record.match.get("depth"),
                "mlp_hidden": record.match.get("mlp_hidden"),
                **{name: x for name, x in record.probes.items() if isinstance(x, int | float)},
                "reused_from": record.reused_from,
                "proposal": record.proposal,
                "message": record.error,
            }
        )
    first = [*_places(design), "trial", "status", "value", "error"]
    columns = dict.fromkeys([*first, *(name for row in rows for name in row)])
    frame = pd.DataFrame(rows, columns=list(columns))
    # By draw, seed and arm, whatever the order in which the trials ended.
    arms = {arm.label: arm.number for arm in design.arms}
    return frame.sort_values(
        ["draw", "seed", "arm"], key=lambda column: column.map(arms) if column.name == "arm" else column
    ).reset_index(drop=True)


def curves(design: Design, records: Iterable[TrialRecord]) -> Any:
    """Return a DataFrame with one row an epoch of a trial: arm, factors, draw, seed, status, what the curve holds."""
    rows = [
        {**_place(design, record), "status": record.status, **point}
        for record in latest(records)
        for point in record.curve
    ]
    return pd.DataFrame(rows, columns=list(dict.fromkeys([*_places(design), *(name for row in rows for name in row)])))


def _places(design: Design) -> list[str]:
    return ["arm", *(f.name for f in design.factors), *(n.name for n in design.nuisances), "draw", "seed"]


def _place(design: Design, record: TrialRecord) -> dict[str, Any]:
    if record.proposal is None or not 0 <= record.proposal < len(design.cells):
        raise StudyError(f"trial {record.trial}: its place (={record.proposal}) is not one of the design's")
    arm, draw = design.cells[record.proposal]
    return {"arm": arm.label, **arm.levels, **design.drawn(arm, draw), "draw": draw, "seed": record.seed}


def guessing(outcome: str, data: dict[str, Any]) -> dict[str, float]:
    """Return metric -> what guessing gives on a data set: what a diverged run is worth. `data` is a record's."""
    classes = DataSpec.model_validate(data).class_count
    right, loss = 1 / classes, math.log(classes)
    is_loss = outcome.endswith("loss")
    return {
        **dict.fromkeys(("top1", "test_top1"), right),
        **dict.fromkeys(("loss", "test_loss"), loss),
        "top1_error": 1 - right,
        "value": loss if is_loss else right,
        "error": loss if is_loss else 1 - right,
    }


def _outcome(record: TrialRecord, outcome: str) -> tuple[float, float]:
    if record.status == "diverged":
        return guessing(outcome, record.data)["value"], math.inf
    value = record.metrics.get(outcome, math.nan)
    return value, value if outcome.endswith("loss") else 1 - value
