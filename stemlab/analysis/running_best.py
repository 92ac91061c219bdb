"""How good the best of a search was after each proposal, and what chance alone would have made of the same results."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

Floats = NDArray[np.float64]
_POINTS = 300


def running_best(values: ArrayLike, sign: int) -> Floats:
    """Return the best of the first value, of the first two, and so on; NaN where none has a value yet.

    `sign` is 1 where larger is better, else -1. A NaN is a proposal without a value.
    """
    return sign * np.fmax.accumulate(sign * np.asarray(values, dtype=np.float64))


@dataclass(frozen=True)
class Expected:
    """The best of n results: its expected value, and the limits between which it lies with a given probability."""

    n: NDArray[np.int64]
    mean: Floats
    low: Floats
    high: Floats


def expected_best(values: ArrayLike, sign: int, share: float = 0.9, points: int = _POINTS) -> Expected:
    """Return what the best of the first n would be if the same results came in a random order: exact, not simulated.

    The best of n of N results, drawn without putting back, is at most the k-th smallest one in C(k, n) of C(N, n)
    draws. Results without a value (NaN) are drawn too; draws of nothing else are left out. n runs from 1 to N, in at
    most `points` steps. `share` is the probability between `low` and `high`.
    """
    gains = sign * np.asarray(values, dtype=np.float64)
    known = np.sort(gains[np.isfinite(gains)])
    total, without = len(gains), len(gains) - len(known)
    if not len(known):
        nothing = np.full(0, np.nan)
        return Expected(np.zeros(0, dtype=np.int64), nothing, nothing, nothing)
    steps = np.arange(1, total + 1) if total <= points else np.geomspace(1, total, points).round()
    n = np.unique(steps.astype(np.int64))
    k = without + np.arange(len(known) + 1)
    with np.errstate(invalid="ignore"):
        below = np.exp(_log_choose(k[None, :], n[:, None]) - _log_choose(np.array(total), n)[:, None])
    below = np.where(k[None, :] < n[:, None], 0.0, below)
    reached = (below - below[:, :1]) / (1 - below[:, :1])  # given that one has a value
    chances = np.diff(reached, axis=1)
    limits = ((1 - share) / 2, (1 + share) / 2)
    low, high = (known[(reached[:, 1:] < limit - 1e-9).sum(axis=1)] for limit in limits)
    ends = (low, high) if sign > 0 else (high, low)
    return Expected(n, sign * chances @ known, *(sign * end for end in ends))


def _log_choose(of: NDArray[np.int64], n: NDArray[np.int64]) -> Floats:
    return np.asarray(gammaln(of + 1) - gammaln(n + 1) - gammaln(np.maximum(of - n, 0) + 1))
