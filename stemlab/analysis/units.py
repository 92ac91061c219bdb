"""The units of evidence: one value an arm and draw, from which all intervals and tests are made."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import SpecError
from .checks import need_columns, need_level


def units(frame: pd.DataFrame, value: str = "value", by: str = "arm") -> pd.DataFrame:
    """Return one row a unit and one column an arm, in order of first appearance; NaN where an arm lacks the unit.

    The unit is the draw (the index is called `draw`); with one draw it is the seed. Runs of one draw share its
    settings and are no independent evidence, so a draw's value is the mean over its seeds, of those that have one;
    it is infinite where one of them is (a diverged run's `error`).

    `by` may name another column, such as a factor: each of its levels is then a column, and its value is the mean
    over the arms of that level. Where one of these arms lacks the unit so does the level: a mean over other arms would
    differ by what these arms are. Rows without a level (nested factors) are left out.
    """
    unit = unit_of(frame)
    need_columns(frame, by, value)
    if by == unit:
        raise SpecError(f"by (={by!r}): expected arms or a factor, not the units that are to be compared within")
    levels = levels_of(frame, by)
    try:
        values = pd.to_numeric(frame[value]).astype(float)
    except (ValueError, TypeError):
        raise SpecError(f"column (={value!r}) does not hold numbers; expected an outcome of the runs") from None
    inside = [unit, by] if by == "arm" or "arm" not in frame.columns else [unit, by, "arm"]
    means = values.groupby([frame[name] for name in inside], sort=True).mean()
    if len(inside) == 3:
        arms = means.unstack("arm")
        wanted = frame.groupby(by)["arm"].nunique()
        complete = arms.notna().sum(axis=1) == wanted.reindex(arms.index.get_level_values(by)).to_numpy()
        means = arms.mean(axis=1).where(complete)
    table = means.unstack(by).reindex(columns=levels)
    return table.rename_axis(index=unit, columns=by)


def unit_of(frame: pd.DataFrame) -> str:
    """Return which column tells the units apart: `draw`, or `seed` where there is one draw."""
    if "draw" in frame.columns and (frame["draw"].nunique() > 1 or "seed" not in frame.columns):
        return "draw"
    need_columns(frame, "seed")
    return "seed"


def levels_of(frame: pd.DataFrame, by: str) -> list[str]:
    """Return the arms, or the levels of another column, in order of first appearance."""
    need_columns(frame, by)
    return list(frame[by].dropna().unique())


def against(frame: pd.DataFrame, baseline: str, value: str, by: str) -> tuple[pd.DataFrame, list[str]]:
    """Return what `units` does, and which arms there are to compare with the baseline."""
    need_level(levels_of(frame, by), baseline)
    table = units(frame, value, by)
    return table, [arm for arm in table.columns if arm != baseline]


def pairs(table: pd.DataFrame, arm: str, baseline: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the values of an arm and of the baseline in the units that both have, from what `units` returned."""
    both = table[[arm, baseline]].dropna()
    return both.iloc[:, 0].to_numpy(dtype=float), both.iloc[:, 1].to_numpy(dtype=float)
