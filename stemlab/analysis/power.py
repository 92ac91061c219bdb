"""How many pairs it would take to see the differences that were seen."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import stats

from .checks import need_resamples, need_share
from .paired import differences
from .resampling import interval
from .result import Result
from .units import against, pairs, unit_of

_COLUMNS = ("n", "difference", "std", "effect", "needed", "least_difference", "needed_for_least")


def units_needed(
    frame: pd.DataFrame,
    baseline: str,
    value: str = "value",
    by: str = "arm",
    power: float = 0.8,
    alpha: float = 0.05,
    resamples: int = 10_000,
    seed: int = 0,
) -> Result:
    """Return how many pairs the paired t test needs to find each arm's difference from the baseline (Cohen 1988).

    A row for each other arm: `n` pairs there were, their mean `difference` and its standard deviation `std`, the
    `effect` (difference / std), and the pairs `needed` for the power asked for (two-sided, at level `alpha`, not
    corrected for the number of arms).

    The seen difference is uncertain, and the larger it is by chance the fewer pairs it seems to need: so
    `least_difference` is the end nearer to zero of its 1 - alpha interval, and `needed_for_least` what that takes;
    0 and infinite where the interval holds zero. A difference of zero needs infinitely many, one without any spread
    two; with fewer than two pairs there is no telling (NaN).
    """
    need_share("power", power)
    need_share("alpha", alpha)
    need_resamples(resamples)
    table, arms = against(frame, baseline, value, by)
    rows = []
    for arm in arms:
        d = differences(*pairs(table, arm, baseline))
        row = {by: arm, "n": len(d)}
        if len(d):
            row["difference"] = d.mean()
        if len(d) > 1:
            std = float(d.std(ddof=1))
            low, high = interval(d, 1 - alpha, resamples, seed)
            least = max(low, 0.0) + min(high, 0.0)
            row |= {"std": std, "effect": _effect(d.mean(), std)}
            row |= {"needed": pairs_needed(_effect(d.mean(), std), power, alpha)}
            row |= {"least_difference": least, "needed_for_least": pairs_needed(_effect(least, std), power, alpha)}
        rows.append(row)
    return Result(
        f"Pairs needed to find a difference in {value} from {by} {baseline}",
        pd.DataFrame(rows, columns=[by, *_COLUMNS]),
        f"Two-sided paired t test over {unit_of(frame)}s (noncentral t) at level {alpha:.4g} with power {power:.4g}, "
        f"for the seen difference and for the end of its {1 - alpha:.4g} interval nearer to zero.",
    )


def t_power(effect: float, n: int, alpha: float = 0.05) -> float:
    """Return the power of the two-sided paired t test of n >= 2 pairs; `effect` is the mean difference / its std."""
    if math.isinf(effect):
        return 1.0
    critical = stats.t.isf(alpha / 2, n - 1)
    shift = abs(effect) * math.sqrt(n)
    # The far tail of a large shift is NaN in scipy, and nothing in truth.
    far = np.nan_to_num(stats.nct.cdf(-critical, n - 1, shift))
    return float(stats.nct.sf(critical, n - 1, shift) + far)


def pairs_needed(effect: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """Return the smallest number of pairs, at least 2, whose paired t test has the power; infinite for no effect."""
    if abs(effect) < 1e-6:  # more than 10^12 pairs
        return math.inf
    enough = 2
    while t_power(effect, enough, alpha) < power:
        enough *= 2
    too_few = enough // 2
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if t_power(effect, middle, alpha) < power:
            too_few = middle
        else:
            enough = middle
    return float(enough)


def _effect(difference: float, std: float) -> float:
    # Constant differences keep a spread of rounding, in which nothing could be seen.
    if abs(difference) > 1e9 * std:
        return math.copysign(math.inf, difference)
    return float(difference / std) if std else 0.0
