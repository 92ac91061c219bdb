"""Would a smaller budget have said the same: ranks along learning curves and between schedules, gaps to the longest."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from ..errors import SpecError, nearest, one_of, short
from .checks import need_columns
from .contrasts import arm_levels, contrasted, open_levels
from .paired import interval
from .result import Result
from .units import unit_of, units

Array = NDArray[np.float64]
_TAU = (
    "Kendall's tau-b between the arms' mean ranks over units (Kendall 1945, Biometrika 33:239); "
    "{confidence:.0%} percentile bootstrap intervals over {units} units."
)


def rank_correlation(
    curves: Any,
    value: str = "top1",
    by: str = "arm",
    limit: float | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Result:
    """Return how well the ranks of the arms after each share of the budget agree with those at the end.

    `curves` has one row an epoch of a run: arm, draw, seed, epoch (1, 2, ...) and the value; where it has a column
    `epochs`, that is how long a run was to be, else it is as long as the longest of its arm. Arms with a shorter
    schedule compare by share of their own budget, each with the last epoch that it had finished by then. A run that
    stops early (diverged) counts as `limit` from there on: what guessing gives; one that ended before its first epoch
    has one row, of epoch 0. Runs that failed have no place here. Rows: epoch (of the longest schedule), share, tau,
    low, high, units.
    """
    need_columns(curves, by, "draw", "seed", "epoch", value)
    filled = {arm: _filled(rows, value, limit, arm) for arm, rows in curves.groupby(by, sort=False)}
    if len(filled) < 2:
        raise SpecError("ranks need two arms")
    schedules = [runs.shape[1] for runs in filled.values()]
    longest = max(schedules)
    grid = [epoch for epoch in range(1, longest + 1) if epoch * min(schedules) >= longest]
    # In whole numbers, so that a share of a third of 9 epochs is 3 of them.
    by_arm = [
        runs.iloc[:, [epoch * schedule // longest - 1 for epoch in grid]].groupby(level=unit_of(curves)).mean()
        for runs, schedule in zip(filled.values(), schedules, strict=True)
    ]
    common = sorted(set.intersection(*(set(means.index) for means in by_arm)))
    if not common:
        raise SpecError("the arms have no draw or seed in common, so they cannot be ranked")
    # (units, arms, epochs)
    values = np.stack([means.loc[common].to_numpy(dtype=float) for means in by_arm], axis=1)
    ranks = rankdata(values, axis=1)
    weights = _resampled(len(common), resamples, seed)
    sums = np.einsum("ru,uae->rae", weights, ranks)
    rows = []
    for index, epoch in enumerate(grid):
        found = _tau(sums[:, :, index], sums[:, :, -1])
        rows.append(dict(epoch=epoch, share=epoch / longest, **_summary(found, confidence), units=len(common)))
    return Result(
        "Rank correlation with the end of training",
        pd.DataFrame(rows, columns=["epoch", "share", "tau", "low", "high", "units"]),
        _TAU.format(confidence=confidence, units=len(common)) + " Arms of shorter schedules by share of their own.",
    )


def rank_between(
    frame: Any,
    factors: Sequence[str],
    factor: str,
    value: str = "value",
    by: str = "arm",
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Result:
    """Return how well the ranks of the arms agree between each two levels of a budget factor such as epochs.

    What is ranked are the settings of the other `factors` that both levels have. Rows: first, second (levels), tau,
    low, high, arms, units. Two levels with fewer than two settings in common have no row.
    """
    pairs = _pairs(frame, factors, factor, by)
    by_unit = units(frame, value, by)
    rows = []
    for (first, second), matched in pairs.items():
        used = by_unit[[arm for pair in matched for arm in pair]].dropna()
        if len(matched) < 2 or used.empty:
            continue
        ranks = [rankdata(used[[pair[side] for pair in matched]].to_numpy(dtype=float), axis=1) for side in (0, 1)]
        weights = _resampled(len(used), resamples, seed)
        found = _tau(weights @ ranks[0], weights @ ranks[1])
        summary = _summary(found, confidence)
        rows.append(dict(first=first, second=second, **summary, arms=len(matched), units=len(used)))
    return Result(
        f"Rank correlation between {factor}",
        pd.DataFrame(rows, columns=["first", "second", "tau", "low", "high", "arms", "units"]),
        _TAU.format(confidence=confidence, units="the common"),
    )


def schedule_gap(
    frame: Any,
    factors: Sequence[str],
    factor: str = "epochs",
    value: str = "value",
    by: str = "arm",
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Result:
    """Return how much each shorter schedule falls short of the longest, in each setting of the other factors.

    Rows: setting, the factor (its level), longest (level), gap (value at the longest minus value at this one, mean
    over units), low, high, n (units that have both). The interval is that of a paired difference.
    """
    pairs = _pairs(frame, factors, factor, by)
    by_unit = units(frame, value, by)
    longest = max((second for _, second in pairs), key=_number, default="")
    settings = open_levels(arm_levels(frame, factors, by))
    rows = []
    for (first, second), matched in pairs.items():
        if second != longest:
            continue
        for short_arm, long_arm in matched:
            gaps = contrasted(by_unit, pd.Series({long_arm: 1.0, short_arm: -1.0})).to_numpy(dtype=float)
            low, high = interval(gaps, confidence, resamples, seed)
            rest = ", ".join(f"{n}={level}" for n, level in settings[short_arm].items() if n != factor)
            gap = gaps.mean() if len(gaps) else np.nan
            rows.append([rest, first, longest, gap, low, high, len(gaps)])
    return Result(
        f"Gap to the longest of {factor}",
        pd.DataFrame(rows, columns=["setting", factor, "longest", "gap", "low", "high", "n"]),
        f"Value at {factor}={longest} minus value at the shorter one, paired by unit; {confidence:.0%} intervals.",
    )


def _filled(rows: Any, value: str, limit: float | None, arm: str) -> Any:
    """Return the curves of one arm, a row for each (draw, seed), a column for each epoch of its schedule."""
    keys = ["draw", "seed", "epoch"]
    if rows.duplicated(keys).any():
        raise SpecError(f"arm {short(arm)} has an epoch of a run twice")
    runs = rows.set_index(keys)[value].unstack("epoch")
    planned = pd.to_numeric(rows["epochs"], errors="coerce").fillna(0) if "epochs" in rows else rows["epoch"]
    schedule = int(max(planned.max(), rows["epoch"].max()))
    runs = runs.reindex(columns=range(1, schedule + 1)).replace([np.inf, -np.inf], np.nan)
    stopped = runs.bfill(axis=1).isna()
    if stopped.to_numpy().any():
        if limit is None:
            raise SpecError(f"a run of arm {short(arm)} stops early: `limit` must say what guessing gives")
        runs = runs.mask(stopped, limit)
    # An epoch that was not measured counts as the one before it, or at the start the one after it.
    return runs.ffill(axis=1).bfill(axis=1)


def _pairs(frame: Any, factors: Sequence[str], factor: str, by: str) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Return (level, larger level) -> pairs of arms that differ in the factor alone."""
    if factor not in factors:
        raise SpecError(f"unknown factor {short(factor)}; expected {one_of(factors)}{nearest(factor, factors)}")
    settings = open_levels(arm_levels(frame, factors, by))
    levels = sorted({found[factor] for found in settings.values() if factor in found}, key=_number)

    def rest(level: str) -> dict[tuple[tuple[str, str], ...], str]:
        return {
            tuple(sorted((n, v) for n, v in found.items() if n != factor)): arm
            for arm, found in settings.items()
            if found.get(factor) == level
        }

    return {
        (first, second): [(rest(first)[key], rest(second)[key]) for key in rest(first) if key in rest(second)]
        for first, second in combinations(levels, 2)
    }


def _number(level: str) -> float:
    try:
        return float(level)
    except ValueError:
        raise SpecError(f"a budget is a number, got level {short(level)}") from None


def _resampled(units: int, resamples: int, seed: int) -> Array:
    """Return how often each unit counts: each once in the first row, drawn with replacement in the others."""
    drawn = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / max(units, 1)), size=resamples)
    return np.vstack([np.ones(units), drawn]).astype(float)


def _tau(first: Array, second: Array) -> Array:
    """Return Kendall's tau-b of each row of two arrays (resamples, arms); 0 where all arms of one are equal.

    As scipy.stats.kendalltau, which takes one pair of rankings at a time.
    """
    i, j = np.triu_indices(first.shape[1], 1)
    signs = [np.sign(ranks[:, i] - ranks[:, j]) for ranks in (first, second)]
    untied = np.prod([np.abs(sign).sum(axis=1) for sign in signs], axis=0)
    return np.asarray((signs[0] * signs[1]).sum(axis=1) / np.sqrt(np.where(untied > 0, untied, 1.0)))


def _summary(found: Array, confidence: float) -> dict[str, float]:
    low, high = np.quantile(found[1:], [(1 - confidence) / 2, (1 + confidence) / 2])
    return {"tau": float(found[0]), "low": float(low), "high": float(high)}
