"""Is an arm better than the baseline, and by how much? Paired differences over the units both have."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from ..errors import SpecError
from .checks import need_one_of, need_resamples, need_share
from .resampling import CORRECTIONS, EXACT_UNITS, Floats, correct, holm, interval, least_p, sign_flip
from .result import Result
from .units import against, pairs, unit_of

__all__ = ["compare", "differences", "holm", "interval", "sign_flip"]

TESTS = ("sign_flip", "wilcoxon")

_COLUMNS = ("n", "mean", "baseline_mean", "difference", "low", "high", "p", "p_corrected", "better")


def compare(
    frame: pd.DataFrame,
    baseline: str,
    value: str = "value",
    by: str = "arm",
    confidence: float = 0.95,
    correction: str = "holm",
    resamples: int = 10_000,
    seed: int = 0,
    test: str = "sign_flip",
) -> Result:
    """Compare every arm with the baseline, by paired differences (arm - baseline) over the units both have.

    A row for each other arm (or level of `by`): `n` pairs, `mean` and `baseline_mean` over them, their `difference`
    with its interval `low` to `high` (studentized bootstrap, see `resampling.intervals`; each interval by itself has
    the confidence), `p` (sign-flip permutation test of the mean, or `test="wilcoxon"`: Wilcoxon's signed ranks),
    `p_corrected` for the number of arms (`holm`, `bh` or `none`), and `better`: the share of pairs in which the arm
    has the larger value, ties counting half.

    With one pair there is no interval (NaN) and p is 1; with none all is NaN, and the arm counts for no correction.
    A unit that is infinite is refused: `edf.compare_edfs` compares errors with diverged runs among them.
    """
    need_share("confidence", confidence)
    need_resamples(resamples)
    need_one_of("correction", correction, CORRECTIONS)
    need_one_of("test", test, TESTS)
    table, arms = against(frame, baseline, value, by)
    if np.isinf(table.to_numpy()).any():
        raise SpecError(
            f"column (={value!r}) holds infinite values, which have no mean; compare 'value', or 'error' by its "
            "distribution (compare_edfs)"
        )
    rows = []
    for arm in arms:
        values, others = pairs(table, arm, baseline)
        row = dict.fromkeys(_COLUMNS, np.nan) | {by: arm, "n": len(values)}
        if len(values):
            d = differences(values, others)
            low, high = interval(d, confidence, resamples, seed)
            p = sign_flip(d, resamples, seed) if test == "sign_flip" else _wilcoxon(d)
            row |= {"mean": values.mean(), "baseline_mean": others.mean(), "difference": d.mean()}
            row |= {"low": low, "high": high, "p": p, "better": np.mean((d > 0) + (d == 0) / 2)}
        rows.append(row)
    result = pd.DataFrame(rows, columns=[by, *_COLUMNS])
    result["p_corrected"] = correct(result["p"], correction)
    return Result(
        f"{value} against {by} {baseline}",
        result,
        _method(result["n"].to_numpy(), unit_of(frame), confidence, correction, resamples, test),
    )


def differences(values: Floats, others: Floats) -> Floats:
    """Return values - others, exactly zero where they differ by no more than rounding does.

    Means over the same seeds in another order differ in their last digit, which no test may take for a difference.
    """
    d = values - others
    return np.where(np.abs(d) <= 1e-12 * np.maximum(np.abs(values), np.abs(others)), 0.0, d)


def _wilcoxon(d: Floats) -> float:
    if not d.any():
        return 1.0
    # Rounded, so that differences that are equal but for rounding share a rank.
    ranked = np.round(d[d != 0] / np.abs(d).max(), 9)
    return float(stats.wilcoxon(ranked).pvalue)


def _method(n: Floats, unit: str, confidence: float, correction: str, resamples: int, test: str) -> str:
    most = int(n.max(initial=0))
    how = f"all 2^n flips up to {EXACT_UNITS} pairs, {resamples} random ones beyond"
    said = {
        "sign_flip": f"sign-flip permutation test of the mean ({how}; Phipson & Smyth 2010)",
        "wilcoxon": "signed-rank test of Wilcoxon (1945)",
        "holm": f"corrected for {len(n)} comparisons by Holm (1979)",
        "bh": f"adjusted for {len(n)} comparisons by Benjamini & Hochberg (1995)",
        "none": "not corrected for the number of comparisons",
    }
    words = (
        f"Differences paired by {unit}; {confidence:.4g} intervals by the studentized bootstrap (Hall 1988; "
        f"{resamples} resamples; no end nearer than Student's, nor more than twice as far), each by itself; "
        f"p by the {said[test]}, {said[correction]}."
    )
    tests = int((n > 0).sum()) if correction == "holm" else 1
    least = least_p(most, tests)
    if most > 0 and least > 1 - confidence:
        words += (
            f" With {most} pairs p is at least {least_p(most):.2g}"
            + (f" and {least:.2g} once corrected" if tests > 1 else "")
            + f", whatever the difference: {1 - confidence:.2g} is out of reach."
        )
    return words
