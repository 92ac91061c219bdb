"""Pareto fronts of two to four objectives (one works too): who dominates whom, and how much a set dominates.

`values` are (trials, objectives); `signs` say of each objective whether more is better (1) or less (-1). A row that
holds a NaN or an infinity is a trial without a result: it is on no front, dominates nothing and adds no volume.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def front(values: ArrayLike, signs: Sequence[int]) -> NDArray[np.bool_]:
    """Return which rows no other row dominates: none is as good in everything and better in something."""
    known = _known(_losses(values, signs))
    return np.asarray(known & (ranks(values, signs) == 0))


def ranks(values: ArrayLike, signs: Sequence[int]) -> NDArray[np.int64]:
    """Return each row's rank: 0 on the front, 1 on the front of the rest, and so on; rows without a result come last.

    The non-dominated sorting of NSGA-II (Deb et al. 2002).
    """
    losses = _losses(values, signs)
    known = _known(losses)
    no_worse = (losses[:, None, :] <= losses[None, :, :]).all(axis=2)
    dominates = no_worse & ~no_worse.T & known[:, None] & known[None, :]
    found = np.full(len(losses), -1)
    left, rank = known.copy(), 0
    while left.any():
        first = left & ~dominates[left].any(axis=0)
        found[first] = rank
        left &= ~first
        rank += 1
    found[~known] = rank
    return found


def hypervolume(values: ArrayLike, signs: Sequence[int], reference: Sequence[float]) -> float:
    """Return the volume of all that is better than `reference` and no better than some row (Zitzler & Thiele 1998).

    It is exact: the algorithm is WFG (While, Bradstreet & Barone 2012). Rows not better than the reference add nothing.
    """
    room, counts = _room(values, signs, reference)
    return _volume(_minimal(room[counts]))


def hypervolume_over_time(values: ArrayLike, signs: Sequence[int], reference: Sequence[float]) -> Floats:
    """Return the hypervolume of the first row, of the first two, and so on."""
    room, counts = _room(values, signs, reference)
    gains = np.zeros(len(room))
    seen = room[:0]
    for index in np.flatnonzero(counts):
        gains[index] = _exclusive(room[index], seen)
        seen = _minimal(np.vstack([seen, room[index]]))
    return np.cumsum(gains)


def contributions(values: ArrayLike, signs: Sequence[int], reference: Sequence[float]) -> Floats:
    """Return by how much the hypervolume would shrink without each row."""
    room, counts = _room(values, signs, reference)
    found = np.zeros(len(room))
    for index in np.flatnonzero(counts):
        others = counts.copy()
        others[index] = False
        found[index] = _exclusive(room[index], room[others])
    return found


def places(values: ArrayLike, signs: Sequence[int]) -> NDArray[np.int64]:
    """Return each row's place, 0 for the best: by rank, and within a rank by its contribution to the hypervolume.

    So Ozaki et al. (2020) split the trials of a multi-objective TPE. The objectives are scaled to the range of what
    was seen; the reference point lies a tenth of it beyond the worst. Rows without a result share the last place;
    equals stand in the order of the rows.
    """
    losses = _losses(values, signs)
    known = _known(losses)
    ranked = ranks(values, signs)
    if not known.any():
        return np.zeros(len(losses), dtype=np.int64)
    low = losses[known].min(axis=0)
    span = losses[known].max(axis=0) - low
    scaled = (losses - low) / np.where(span > 0, span, 1.0)
    share = np.zeros(len(losses))
    for rank in range(ranked[known].max() + 1):
        same = ranked == rank
        share[same] = contributions(scaled[same], [-1] * scaled.shape[1], [1.1] * scaled.shape[1])
    found = np.full(len(losses), known.sum(), dtype=np.int64)
    order = [index for index in np.lexsort((-share, ranked)) if known[index]]
    found[order] = np.arange(len(order))
    return found


def _losses(values: ArrayLike, signs: Sequence[int]) -> Floats:
    """Return the rows with every objective turned so that less is better."""
    array = np.asarray(values, dtype=np.float64).reshape(-1, len(signs))
    return np.asarray(array * -np.asarray(signs, dtype=np.float64))


def _known(losses: Floats) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(losses).all(axis=1))


def _room(values: ArrayLike, signs: Sequence[int], reference: Sequence[float]) -> tuple[Floats, NDArray[np.bool_]]:
    """Return how far each row is below the reference, and which rows are below it in every objective."""
    losses = _losses(values, signs)
    room: Floats = _losses([reference], signs)[0] - losses
    return room, _known(losses) & np.asarray((room > 0).all(axis=1))


def _minimal(room: Floats) -> Floats:
    """Return the rows that no other one covers, each once."""
    rows = np.unique(room, axis=0)
    covers = (rows[:, None, :] >= rows[None, :, :]).all(axis=2)
    return np.asarray(rows[covers.sum(axis=0) == 1])


def _volume(room: Floats) -> float:
    """Return the volume of a union of boxes that all begin at the origin and none of which covers another."""
    if len(room) <= 1 or room.shape[1] == 1:
        return float(room.prod(axis=1).max(initial=0.0))
    if room.shape[1] == 2:
        widest = room[np.argsort(-room[:, 0])]
        steps = np.diff(widest[:, 1], prepend=0.0)
        return float((widest[:, 0] * steps).sum())
    # Sorted so, each box is clipped to what is small in one objective, and few of the clipped ones remain.
    room = room[np.argsort(-room[:, -1])]
    return sum(_exclusive(row, room[index + 1 :]) for index, row in enumerate(room))


def _exclusive(row: Floats, others: Floats) -> float:
    """Return the volume that a box adds to those of the others."""
    alone = float(row.prod())
    return alone - _volume(_minimal(np.minimum(row, others))) if len(others) else alone
