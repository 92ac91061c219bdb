"""How much each hole of a search matters: what a random forest loses when the hole is shuffled (Breiman 2001)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .analysis.result import Result
from .space import Hole

FEWEST = 10
"""Of fewer results nothing is said."""

LEAST_FIT = 0.1
"""The least share of the variance that the forest must predict out of bag. Of results without any pattern it predicts
more by chance in fewer than 5 of 100 searches, with 10 results or more."""

_TREES = 200
_MOST_ROWS = 2000
_SHUFFLED_ROWS = 20_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Block:
    """The columns of a hole and of the holes inside its options, and the rows in which it is open."""

    name: str
    columns: tuple[int, ...]
    open: NDArray[np.bool_]


def importance(holes: Sequence[Hole], assignments: Sequence[Mapping[str, Any]], values: Sequence[float]) -> Result:
    """Return how much the results depend on each hole: hole, importance, low, high, share_open; the greatest first.

    `assignments` says how each of the proposals filled the holes, `values` what it came to. A random forest is fitted
    to them, and judged out of bag: on the proposals that a tree was not fitted to. The importance of a hole is half of
    what the squared error grows by when what fills it is shuffled among the proposals in which it is open, as a share
    of the variance of all results: where the forest is right, that is the share of the variance that goes through the
    hole, alone or with others (Gregorutti et al. 2017). The limits are two standard errors over the proposals away.
    The holes inside an option are shuffled along with their choice, and those that are closed are a level of their
    own. The frame is empty, and the method says why, where there are too few results or the forest predicts none that
    it has not seen.
    """
    from sklearn.ensemble import RandomForestRegressor

    y = np.asarray(values, dtype=float)
    title = "How much each hole matters"
    if len(y) < FEWEST:
        return _nothing(title, f"There are {len(y)} results; of fewer than {FEWEST} nothing can be said.")
    if len(y) > _MOST_ROWS:
        kept = np.sort(np.random.default_rng(0).choice(len(y), _MOST_ROWS, replace=False))
        y, assignments = y[kept], [assignments[index] for index in kept]
    table, blocks = _encode(holes, assignments)
    variance = float(y.var())
    if not blocks or variance == 0:
        return _nothing(title, "All results are the same, or no hole was filled in more than one way.")
    forest = RandomForestRegressor(_TREES, min_samples_leaf=2, max_features=0.5, random_state=0).fit(table, y)
    repeats = max(1, min(20, _SHUFFLED_ROWS // len(y)))
    rng = np.random.default_rng(0)
    tables = [table, *(_shuffled(table, block, rng) for block in blocks for _ in range(repeats))]
    predicted = _out_of_bag(forest, np.stack(tables))
    errors = np.square(predicted - y) / variance
    known = np.isfinite(errors[0])
    fit = 1 - float(errors[0][known].mean())
    said = f"A random forest of {_TREES} trees explains {fit:.0%} of the variance of {len(y)} results out of bag"
    if not fit >= LEAST_FIT:
        return _nothing(
            title,
            f"Nothing can be said: a random forest fitted to the {len(y)} results does not predict those it has not "
            f"seen (it explains {max(0.0, fit):.0%} of their variance out of bag; {LEAST_FIT:.0%} are needed).",
        )
    grown = (errors[1:] - errors[0]).reshape(len(blocks), repeats, -1).mean(axis=1)[:, known] / 2
    middle = grown.mean(axis=1)
    margin = 2 * grown.std(axis=1, ddof=1) / math.sqrt(known.sum())
    frame = pd.DataFrame(
        {
            "hole": [block.name for block in blocks],
            "importance": middle,
            "low": middle - margin,
            "high": middle + margin,
            "share_open": [float(block.open.mean()) for block in blocks],
        }
    )
    frame = frame.sort_values("importance", ascending=False, kind="stable", ignore_index=True)
    return Result(
        title,
        frame,
        f"{said}. Importance: half of what its squared error grows by when a hole is shuffled, with the holes inside "
        "it, among the proposals in which it is open, as a share of the variance; ± two standard errors. The proposals "
        "of a tuner lie where it expected good ones: elsewhere a hole may matter more or less.",
    )


def _nothing(title: str, why: str) -> Result:
    return Result(title, pd.DataFrame(columns=["hole", "importance", "low", "high", "share_open"]), why)


def _encode(holes: Sequence[Hole], assignments: Sequence[Mapping[str, Any]]) -> tuple[Floats, list[_Block]]:
    """Return a table with numbers as they are and a column for each level of a choice, and the holes' columns."""
    columns: list[Floats] = []
    blocks: list[_Block] = []
    for hole in _walk(holes):
        first = len(columns)
        opened = np.array([hole.name in assignment for assignment in assignments])
        levels = [_level(hole, assignment) if hole.name in assignment else None for assignment in assignments]
        for column in _columns(hole, levels):
            if len(np.unique(column)) > 1:
                columns.append(column)
        blocks.append(_Block(hole.name, tuple(range(first, len(columns))), opened))
    inside = [
        _Block(
            block.name,
            tuple(column for other in blocks if _is_in(other.name, block.name) for column in other.columns),
            block.open,
        )
        for block in blocks
    ]
    table = np.column_stack(columns) if columns else np.empty((len(assignments), 0))
    varied = [block for block in inside if len(np.unique(table[block.open][:, list(block.columns)], axis=0)) > 1]
    return table, varied


def _walk(holes: Sequence[Hole]) -> Iterator[Hole]:
    for hole in holes:
        yield hole
        for inner in hole.inner:
            yield from _walk(inner)


def _is_in(name: str, outer: str) -> bool:
    return name == outer or name.startswith((f"{outer}.", f"{outer}["))


def _level(hole: Hole, assignment: Mapping[str, Any]) -> Any:
    """Return the number that fills a hole, or the place of the option of a choice."""
    value = assignment[hole.name]
    if hole.kind != "choice":
        return float(value)
    if isinstance(value, str) and value in hole.keys:
        return hole.keys.index(value)
    for place, (option, inner) in enumerate(zip(hole.options, hole.inner, strict=True)):
        if value == option if not inner else all(other.name in assignment for other in inner):
            return place
    return len(hole.options)  # of a study file that has been changed since


def _columns(hole: Hole, levels: Sequence[Any]) -> Iterator[Floats]:
    """Yield what a tree can split: where a hole is closed, a number below all others, or no level at all."""
    numbers = None
    if hole.kind == "choice" and all(type(option) in (int, float) for option in hole.options):
        numbers = [hole.options[level] if level is not None and level < len(hole.options) else None for level in levels]
    elif hole.kind != "choice":
        numbers = [math.log(level) if hole.kind == "log_uniform" and level is not None else level for level in levels]
    if numbers is not None:
        known = [number for number in numbers if number is not None]
        below = min(known, default=0.0) - 1 - (max(known, default=0.0) - min(known, default=0.0))
        yield np.array([below if number is None else number for number in numbers], dtype=float)
        return
    for place in range(len(hole.options) + 1):
        yield np.array([level == place for level in levels], dtype=float)


def _shuffled(table: Floats, block: _Block, rng: np.random.Generator) -> Floats:
    """Return the table with the rows of a block exchanged among those in which it is open."""
    rows = np.flatnonzero(block.open)
    mixed = rng.permutation(rows)
    shuffled = table.copy()
    for column in block.columns:
        shuffled[rows, column] = table[mixed, column]
    return shuffled


def _out_of_bag(forest: Any, tables: Floats) -> Floats:
    """Return predictions (tables, rows) by the trees that were not fitted to the row; NaN where all were."""
    copies, rows, _ = tables.shape
    sums, counts = np.zeros((copies, rows)), np.zeros(rows)
    for tree, drawn in zip(forest.estimators_, forest.estimators_samples_, strict=True):
        out = np.setdiff1d(np.arange(rows), drawn)
        sums[:, out] += tree.predict(tables[:, out].reshape(copies * len(out), -1)).reshape(copies, len(out))
        counts[out] += 1
    with np.errstate(invalid="ignore"):
        return sums / counts
