"""What the probes of an ablation measured, by arm: numbers, curves over epochs, and similarity by block."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ..design import Design
from ..records import TrialRecord
from .ranking import latest
from .result import Result

_QUARTERS = "Line: median over runs; band: from the lower to the upper quartile."


def learning(frame: Any, curves: Any, column: str, by: str = "arm") -> Result:
    """Return how a column of the curves runs over epochs: arm, epoch, middle, low, high, runs.

    Median and quartiles over an arm's runs. Behind its end, a diverged run counts as guessing (its `value` in `frame`)
    where `column` is the outcome on the validation part, so that an arm does not look better for the runs it lost.
    """
    table = pd.DataFrame(curves)
    if column not in table.columns:
        return Result(f"{column} by epoch", pd.DataFrame(columns=[by, "epoch", "middle", "low", "high", "runs"]), "")
    table = table[[by, "draw", "seed", "epoch", column]].dropna()
    lost = frame[frame["status"] == "diverged"] if column in ("top1", "loss") else frame.iloc[:0]
    last = table.groupby(by)["epoch"].max()  # of the arm's own schedule
    ends = table.groupby([by, "draw", "seed"])["epoch"].max()
    rest = [
        {by: row[by], "draw": row["draw"], "seed": row["seed"], "epoch": float(epoch), column: row["value"]}
        for row in lost.to_dict("records")
        for epoch in range(int(ends.get((row[by], row["draw"], row["seed"]), 0)) + 1, int(last.get(row[by], 0)) + 1)
    ]
    table = pd.concat([table, pd.DataFrame(rest)]) if rest else table
    rows = [
        {
            by: arm,
            "epoch": epoch,
            "middle": values.median(),
            "low": values.quantile(0.25),
            "high": values.quantile(0.75),
            "runs": len(values),
        }
        for arm in frame[by].unique()
        for epoch, values in table[table[by] == arm].groupby("epoch")[column]
    ]
    return Result(
        f"{column} by epoch",
        pd.DataFrame(rows, columns=[by, "epoch", "middle", "low", "high", "runs"]),
        f"{_QUARTERS} Behind its end a diverged run counts as guessing." if rest else _QUARTERS,
    )


def scalars(frame: Any, names: Sequence[str], confidence: float = 0.95, by: str = "arm") -> Result | None:
    """Return mean and interval of each scalar probe: probe, arm, mean, low, high, units; None where none was measured.

    A unit is a draw (the mean over its seeds) or, with one draw, a seed. Student's t interval of the mean over units,
    missing for a single one.
    """
    unit = "draw" if frame["draw"].nunique() > 1 else "seed"
    rows = []
    for name in names:
        for arm, runs in frame.groupby(by, sort=False):
            values = runs.groupby(unit)[name].mean().dropna().to_numpy(dtype=float)
            if len(values):
                low, high = _interval(values, confidence)
                rows.append(
                    {"probe": name, by: arm, "mean": values.mean(), "low": low, "high": high, "units": len(values)}
                )
    if not rows:
        return None
    return Result(
        "What the probes measured",
        pd.DataFrame(rows),
        f"Mean over {unit}s of the runs that have the number, with Student's {confidence:.0%} t interval.",
    )


def _interval(values: Any, confidence: float) -> tuple[float, float]:
    if len(values) < 2:
        return math.nan, math.nan
    reach = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * stats.sem(values)
    return values.mean() - reach, values.mean() + reach


def scalar_probes(records: Iterable[TrialRecord]) -> list[str]:
    """Return the names of the probes that are one number, in the order of the first record that has each."""
    return list(
        dict.fromkeys(
            name
            for record in records
            for name, value in record.probes.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        )
    )


def token_similarity(design: Design, records: Iterable[TrialRecord]) -> Result | None:
    """Return how alike the tokens are behind each layer: arm, place, layer, middle, low, high, runs; None if unknown.

    `place` counts layers from 0, the stem.
    """
    found: dict[tuple[str, int, str], list[float]] = {}
    for record in latest(records):
        tokens = record.probes.get("tokens")
        if not isinstance(tokens, dict) or "similarity" not in tokens or record.proposal is None:
            continue
        arm = design.cells[record.proposal][0].label
        for place, (layer, value) in enumerate(zip(tokens["layers"], tokens["similarity"], strict=True)):
            if value is not None and math.isfinite(value):
                found.setdefault((arm, place, str(layer)), []).append(value)
    if not found:
        return None
    order = {arm.label: arm.number for arm in design.arms}
    rows = [
        {
            "arm": arm,
            "place": place,
            "layer": layer,
            "middle": float(np.median(values)),
            "low": float(np.quantile(values, 0.25)),
            "high": float(np.quantile(values, 0.75)),
            "runs": len(values),
        }
        for (arm, place, layer), values in sorted(found.items(), key=lambda item: (order[item[0][0]], item[0][1]))
    ]
    return Result(
        "How alike the tokens of an image are",
        pd.DataFrame(rows),
        f"Mean cosine similarity of the patch tokens of an image, behind the stem and each block. {_QUARTERS}",
    )
