"""Which arms diverge more often: rates of diverged runs, with exact intervals and an exact paired test."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from .checks import need_columns, need_level, need_share
from .paired import differences
from .resampling import Floats, correct, sign_flip
from .result import Result
from .units import levels_of, pairs, unit_of, units


def divergence(frame: pd.DataFrame, baseline: str | None = None, by: str = "arm", confidence: float = 0.95) -> Result:
    """Return how often the runs of each arm diverged; failed runs are counted and left out.

    A row an arm: `runs` that ended or diverged, `diverged` of them, `failed` ones, `rate` with its exact interval
    (Clopper & Pearson 1934), which takes the runs for independent. Where draws have several seeds it is therefore too
    short if it is the draw that decides.

    With a `baseline`: `pairs` of units that both have, the mean `difference` of their rates, and `p` of McNemar's exact
    test (1947), with `p_corrected` for the number of arms by Holm (1979). A unit that diverges in some of its runs
    counts for that share, and the test is then the sign flip of the differences: McNemar's, where shares are 0 or 1.
    """
    need_columns(frame, by, "status")
    need_share("confidence", confidence)
    levels = levels_of(frame, by)
    if baseline is not None:
        need_level(levels, baseline)
    diverged = (frame["status"] == "diverged").astype(float).where(frame["status"] != "failed")
    table = units(frame.assign(diverged=diverged), "diverged", by)
    rows = []
    for arm in levels:
        inside = frame[by] == arm
        runs, count = int(diverged[inside].count()), int(diverged[inside].sum())
        row = {by: arm, "runs": runs, "diverged": count, "failed": int((frame["status"][inside] == "failed").sum())}
        if runs:
            ends = stats.binomtest(count, runs).proportion_ci(confidence, method="exact")
            row |= {"rate": count / runs, "low": ends.low, "high": ends.high}
        if baseline is not None and arm != baseline:
            d = differences(*pairs(table, arm, baseline))
            row |= {"pairs": len(d), "p": _test(d)}
            row["difference"] = float(d.mean()) if len(d) else np.nan
        rows.append(row)
    names = [by, *_RATES, *(_TESTED if baseline is not None else ())]
    result = pd.DataFrame(rows, columns=names)
    method = (
        f"Exact {confidence:.4g} intervals (Clopper & Pearson 1934), each run counted as independent; failed runs left "
        "out."
    )
    if baseline is not None:
        result["p_corrected"] = correct(result["p"], "holm")
        method += f" Against {baseline}: McNemar's exact test over {unit_of(frame)}s, corrected by Holm (1979)."
    return Result(f"Diverged runs by {by}", result, method)


_RATES = ("runs", "diverged", "failed", "rate", "low", "high")
_TESTED = ("pairs", "difference", "p", "p_corrected")


def _test(d: Floats) -> float:
    """Return McNemar's exact p, of all 2^n swaps; where shares are between 0 and 1 it is the sign flip's."""
    discordant = d[d != 0]
    if len(discordant) and (np.abs(discordant) == 1).all():
        return float(stats.binomtest(int((discordant > 0).sum()), len(discordant)).pvalue)
    return sign_flip(discordant) if len(discordant) else (1.0 if len(d) else np.nan)
