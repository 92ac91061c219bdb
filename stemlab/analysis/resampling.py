"""Intervals and tests of a mean by resampling, for the few paired differences that a study has.

Every function takes differences of shape (..., n), n units last, and works on all leading axes at once. The same
number of units, resamples and seed give the same resamples, so results are the same from call to call, and arms are
compared on the same resampled units.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ..errors import SpecError, short
from .checks import need_resamples, need_share

Floats = NDArray[np.float64]

EXACT_UNITS = 15
"""Up to here all sign flips are gone through: 2^15, of which half mirror the others."""

_FEWEST_RESAMPLED = 5
"""Fewer units give so few resamples, and so many without spread, that the bootstrap's ends are anywhere."""

_NOISE = 1e-9
"""What is this much smaller than its kind is what rounding leaves of nothing."""


def least_p(pairs: int, tests: int = 1) -> float:
    """Return the least p that a sign-flip test of so many pairs can give, corrected for so many tests by Holm."""
    return min(1.0, tests * 2.0 ** (1 - pairs))


def interval(
    differences: ArrayLike, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return the confidence interval (low, high) of the mean of n differences: the studentized bootstrap.

    See `intervals`, which takes many at once. NaN where n is less than 2.
    """
    low, high = intervals(np.atleast_1d(_finite(differences)).reshape(1, -1), confidence, resamples, seed)[0]
    return float(low), float(high)


def intervals(differences: ArrayLike, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Floats:
    """Return confidence intervals of means, (..., 2) for differences (..., n), by the studentized bootstrap.

    The bootstrap-t (Hall 1988; Efron & Tibshirani 1993, ch. 12.5): how far the means of resamples lie from the mean,
    in standard errors of their own, takes the place of Student's table, so that skewed differences get the asymmetric
    interval they need. Alone it is too short where few differences have heavy tails, and goes anywhere where one is
    unlike all others: so an end is never nearer than Student's, nor more than twice as far. Fewer than 5 units get
    Student's interval, equal differences one of no width, fewer than 2 units NaN. Bootstraps that are not studentized
    are too short for all: of nominal 95 %, the percentile interval of 8 normal differences holds 88 %.

    How often a nominal 95 % held the mean in 20,000 simulated studies, in % (Student's alone in brackets):

        units            5            8            12           24
        normal           97 (95)      97 (95)      96 (95)      96 (95)
        gamma(2)         95 (91)      95 (92)      95 (92)      96 (94)
        lognormal(0.5)   95 (92)      95 (92)      95 (92)      95 (93)
        t, 5 df          97 (96)      97 (96)      96 (96)      96 (96)

    It is no cure for what so few units do not show: 8 differences as skewed as a lognormal(1) leave it at 90 %
    (Student's at 83 %), and that an arm diverges in one draw of ten, most studies of 5 do not see (`divergence`).
    """
    need_share("confidence", confidence)
    need_resamples(resamples)
    values = _finite(differences)
    n = values.shape[-1]
    if n < 2:
        return np.full((*values.shape[:-1], 2), np.nan)
    mean = values.mean(axis=-1, keepdims=True)
    spread = values.std(axis=-1, ddof=1, keepdims=True)
    error = spread / np.sqrt(n)
    tail = (1 - confidence) / 2
    student = stats.t.ppf(1 - tail, n - 1)
    if n < _FEWEST_RESAMPLED:
        lower, upper = -student, student
    else:
        # Standardized, so that the resamples without spread can be told from those of a small scale.
        scores = (values - mean) / np.where(spread == 0, 1.0, spread)
        lower, upper = _bootstrap_t(scores, tail, resamples, seed)
    low = mean - np.clip(upper, student, 2 * student) * error
    high = mean + np.clip(-lower, student, 2 * student) * error
    return np.concatenate([low, high], axis=-1)


def _bootstrap_t(scores: Floats, tail: float, resamples: int, seed: int) -> tuple[Floats, Floats]:
    """Return the quantiles `tail` and 1 - `tail` of t over resamples, (..., 1)."""
    n = scores.shape[-1]
    counts = resample_counts(n, resamples, seed)
    means = scores @ counts.T / n
    variances = (scores**2 @ counts.T / n - means**2) / (n - 1)
    # A resample of ties has no spread: its t is as good as infinite.
    t = means / np.sqrt(np.maximum(variances, _NOISE))
    lower, upper = np.quantile(t, [tail, 1 - tail], axis=-1)[..., None]
    return lower, upper


def sign_flip(differences: ArrayLike, resamples: int = 10_000, seed: int = 0) -> float:
    """Return the two-sided p of the sign-flip permutation test: is the mean of n paired differences zero?

    See `sign_flips`, which takes many at once. NaN where there are no differences, 1 where there is one.
    """
    return float(sign_flips(np.atleast_1d(_finite(differences)).reshape(1, -1), resamples, seed)[0])


def sign_flips(differences: ArrayLike, resamples: int = 10_000, seed: int = 0) -> Floats:
    """Return two-sided p values, (...) for differences (..., n), of the sign-flip permutation test of the mean.

    If two arms do not differ, each pair could as well have been the other way round (Fisher 1935). p is the share of
    flips whose mean is as far from zero as the seen one: of all 2^n flips up to 15 units, else of `resamples` random
    ones, the seen one counted among them (Phipson & Smyth 2010). So p is never below 2 / 2^n.
    """
    need_resamples(resamples)
    values = _finite(differences)
    n = values.shape[-1]
    if n == 0:
        return np.full(values.shape[:-1], np.nan)
    flips, exact = sign_matrix(n, resamples, seed)
    seen = np.abs(values.sum(axis=-1, keepdims=True))
    reached = np.abs(values @ flips.T) >= seen - _NOISE * np.abs(values).sum(axis=-1, keepdims=True)
    return share_reached(reached, exact)


def share_reached(reached: NDArray[np.bool_], exact: bool) -> Floats:
    """Return p from which flips (last axis) reach what was seen; random flips count the seen one too."""
    return np.asarray(reached.mean(axis=-1) if exact else (1 + reached.sum(axis=-1)) / (1 + reached.shape[-1]))


def sign_matrix(n: int, resamples: int, seed: int) -> tuple[Floats, bool]:
    """Return flips (flips, n) of 1 and -1, and whether these are all of them (but for the mirrored ones)."""
    if n > EXACT_UNITS:
        return _random_signs(n, resamples, seed), False
    return _all_signs(n), True


@lru_cache(maxsize=8)
def _all_signs(n: int) -> Floats:
    # Tests are two-sided, so a flip and its mirror image are one: the first sign stays.
    bits = np.arange(2 ** (n - 1))[:, None] >> np.arange(n)[None, :] & 1
    return _locked(1.0 - 2.0 * np.roll(bits, 1, axis=1))


@lru_cache(maxsize=8)
def _random_signs(n: int, resamples: int, seed: int) -> Floats:
    return _locked(np.random.default_rng(seed).choice([-1.0, 1.0], size=(resamples, n)))


@lru_cache(maxsize=8)
def resample_counts(n: int, resamples: int, seed: int) -> Floats:
    """Return how often each of n units is in each resample: (resamples, n), rows of sum n."""
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return _locked(np.bincount(drawn.ravel(), minlength=n * resamples).reshape(resamples, n).astype(float))


def holm(p: ArrayLike) -> Floats:
    """Return p values (..., m) corrected for there being m: Holm (1979), valid however the tests hang together.

    What is NaN stays so and does not count.
    """
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, axis=-1)  # NaN last
    known = (~np.isnan(values)).sum(axis=-1, keepdims=True)
    left = np.maximum(known - np.arange(values.shape[-1]), 1)
    stepped = np.maximum.accumulate(np.take_along_axis(values, order, axis=-1) * left, axis=-1)
    corrected = np.empty_like(values)
    np.put_along_axis(corrected, order, np.minimum(stepped, 1.0), axis=-1)
    return corrected


def benjamini_hochberg(p: ArrayLike) -> Floats:
    """Return p values (m,) adjusted so that a threshold bounds the false discovery rate; NaN stays and does not count.

    Benjamini & Hochberg (1995), as scipy has it.
    """
    values = np.array(p, dtype=float)
    known = ~np.isnan(values)
    if known.any():
        values[known] = stats.false_discovery_control(values[known], method="bh")
    return values


CORRECTIONS = ("holm", "bh", "none")


def correct(p: ArrayLike, correction: str) -> Floats:
    """Return p values (m,) corrected as `correction` says, one of CORRECTIONS."""
    if correction == "none":
        return np.array(p, dtype=float)
    return holm(p) if correction == "holm" else benjamini_hochberg(p)


def _finite(differences: ArrayLike) -> Floats:
    values = np.asarray(differences, dtype=float)
    if not np.isfinite(values).all():
        raise SpecError(f"differences (={short(differences)}): expected finite numbers")
    return values


def _locked(array: Floats) -> Floats:
    array.flags.writeable = False  # cached: shared by all who ask for it
    return array
