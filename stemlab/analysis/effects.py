"""Main effects and two-factor interactions of an ablation, with intervals and tests over paired units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import SpecError, nearest, one_of, short
from .contrasts import Inner, arm_levels, contrast, contrasted, in_order
from .paired import holm, interval, sign_flip
from .resampling import least_p
from .result import Result
from .units import units

_COLUMNS = ["kind", "factor", "level", "baseline", "difference", "low", "high", "p", "p_corrected", "n"]


def effects(
    frame: Any,
    factors: Mapping[str, Sequence[str]],
    value: str = "value",
    by: str = "arm",
    of: str | None = None,
    interactions: bool = True,
    inner: Inner = "averaged",
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Result:
    """Return the main effect of each level of each factor against its baseline, and the two-factor interactions.

    `factors` holds name -> levels, the baseline first. Rows: kind (main | interaction), factor (`act`, `norm × act`),
    level (`gelu`, `none × gelu`), baseline, difference (in the unit of `value`), low, high, p, p_corrected (Holm 1979,
    over the table), n. Each effect is a `contrast` over the arms: one number a unit, so its interval and its test are
    those of a paired difference over units; n counts the units that have all its arms. An interaction is a difference
    of differences. Effects that the arms do not tell are left out, and `method` says which. `inner` is that of
    `contrast`: `baseline` for designs that change one factor at a time. `of` asks for the main effects of one factor
    alone.
    """
    if of is not None and of not in factors:
        raise SpecError(f"unknown factor {short(of)}; expected {one_of(factors)}{nearest(of, factors)}")
    arms = in_order(arm_levels(frame, list(factors), by), factors)
    by_unit = units(frame, value, by).dropna(axis=1, how="all")
    arms = arms[[arm in by_unit.columns for arm in arms.index]]
    rows: list[dict[str, Any]] = []
    unknown: dict[str, None] = {}
    modelled = False
    for compare in _comparisons(factors, interactions and of is None):
        if of is not None and of not in compare:
            continue
        name = " × ".join(compare)
        try:
            weights = contrast(arms, compare, inner=inner)
        except SpecError:
            unknown[name if len(compare) == 2 else f"{name}={compare[name][1]}"] = None
            continue
        modelled = modelled or weights.attrs["contexts"] == 0
        differences = contrasted(by_unit, weights).to_numpy(dtype=float)
        low, high = interval(differences, confidence, resamples, seed)
        rows.append(
            {
                "kind": "main" if len(compare) == 1 else "interaction",
                "factor": name,
                "level": " × ".join(last for _, last in compare.values()),
                "baseline": " × ".join(first for first, _ in compare.values()),
                "difference": differences.mean() if len(differences) else np.nan,
                "low": low,
                "high": high,
                "p": sign_flip(differences, resamples, seed),
                "n": len(differences),
            }
        )
    found = pd.DataFrame(rows, columns=[name for name in _COLUMNS if name != "p_corrected"])
    found["p_corrected"] = holm(found["p"].to_numpy(dtype=float))
    method = _method(found["n"].to_numpy(), confidence, modelled, list(unknown))
    return Result("Effects" if of is None else f"Effects of {of}", found[_COLUMNS], method)


def _comparisons(factors: Mapping[str, Sequence[str]], interactions: bool) -> Iterator[dict[str, tuple[str, str]]]:
    against = {name: [(levels[0], level) for level in levels[1:]] for name, levels in factors.items()}
    for name, pairs in against.items():
        yield from ({name: pair} for pair in pairs)
    for first, second in combinations(factors, 2) if interactions else ():
        yield from ({first: one, second: other} for one, other in product(against[first], against[second]))


def _method(n: NDArray[np.int64], confidence: float, modelled: bool, unknown: Sequence[str]) -> str:
    text = [
        "Contrasts over the arms, averaged over the settings of the other factors, paired by unit; "
        f"{confidence:.0%} studentized bootstrap intervals, sign-flip tests, Holm's correction over the table."
    ]
    most = int(n.max(initial=0))
    least = least_p(most, int((n > 0).sum()))
    if most > 0 and least > 1 - confidence:
        text.append(
            f"With {most} units and {len(n)} effects p_corrected cannot be below {least:.2g} whatever the "
            "effects: look at the intervals, or at fewer effects."
        )
    if modelled:
        text.append("Where no arms differ in a factor alone (a fraction): least squares, so effects may be aliased.")
    if unknown:
        text.append(f"Not told by these arms: {', '.join(unknown)}.")
    return " ".join(text)
