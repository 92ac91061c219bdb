"""Contrasts: an effect of a design as weights over its arms, so that one unit's arms give one number.

Weights over arms make every effect a paired difference: what holds for two arms (common draws, common seeds) holds
for a main effect or an interaction of any design.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any, Literal

import numpy as np
import pandas as pd

from ..errors import SpecError, nearest, one_of, short
from .checks import need_columns

Levels = dict[str, str]
Inner = Literal["averaged", "baseline"]


def contrast(
    arms: Any,
    compare: Mapping[str, tuple[str, str]],
    where: Mapping[str, str] | None = None,
    inner: Inner = "averaged",
) -> Any:
    """Return the weights of an effect, a Series by arm of those with one that is not zero.

    `arms` is a DataFrame of levels, one row an arm (the baseline first), one column a factor, missing where the arm
    has not opened the factor. `compare` holds factor -> (from, to): with one factor the effect is `to` minus `from`,
    with two it is the difference of differences, that at the second factor's `to` minus that at its `from` (which is
    the same with the factors swapped). `where` fixes other factors; in arms that cannot open one it holds anyway.

    The effect is the mean over contexts: the settings of the other factors in which all cells compared have an arm.
    So it is the difference of marginal means in a full factorial, and an arm minus the baseline where one factor is
    changed at a time. Factors that only one side opens (those inside an option of the factor compared) make no
    context: their levels are `averaged`, or with `baseline` that arm stands for all which differs least from the others
    (the one that one factor at a time was changed from), the first of equals.

    Where no context has all cells, as in a fraction, it is the least-squares estimate in a model of main effects (for
    an interaction: and all two-factor interactions), which is the difference of marginal means in a regular fraction
    (Box & Hunter 1961, Technometrics 3:311). `attrs["contexts"]` counts the contexts, 0 for a model. SpecError, which
    says what is missing, where that has no answer either.
    """
    settings = open_levels(arms)
    factors = [str(name) for name in arms.columns]
    where = dict(where or {})
    _check(settings, factors, compare, where)
    cells = _cells(settings, compare, where)
    contexts = list(_contexts(cells, [name for name in factors if name not in compare], settings))
    weights: dict[str, float] = {}
    for context in contexts:
        for (sign, _), found in zip(_combinations(compare), context, strict=True):
            members = [_centre(found, settings)] if inner == "baseline" else found
            weights |= {arm: sign / len(members) / len(contexts) for arm in members}
    if not contexts:
        weights = _least_squares(settings, compare, where)
    series = pd.Series(weights, dtype=float, name="weight").rename_axis("arm")
    series.attrs["contexts"] = len(contexts)
    return series


def contrasted(by_unit: Any, weights: Any) -> Any:
    """Return the value of a contrast in each unit that has all its arms, a Series, from what `units` returned.

    It is exactly zero where it is no more than rounding leaves of equal values.
    """
    used = by_unit[weights.index].dropna()
    values = used @ weights
    return values.mask(values.abs() <= 1e-12 * (used.abs() @ weights.abs()), 0.0)


def arm_levels(frame: Any, factors: Sequence[str], by: str = "arm") -> Any:
    """Return the levels of each arm of a results frame, in the order of its arms: the `arms` of `contrast`."""
    need_columns(frame, by, *factors)
    rows = frame[[by, *factors]].drop_duplicates()
    twice = rows[by][rows[by].duplicated()]
    if len(twice):
        raise SpecError(f"arm {short(twice.iloc[0])} has more than one level of a factor")
    return rows.set_index(by)


def in_order(arms: Any, factors: Mapping[str, Sequence[str]]) -> Any:
    """Return the arms sorted by their levels, the baseline of each factor first."""
    places = {name: {level: place for place, level in enumerate(levels)} for name, levels in factors.items()}
    order = pd.DataFrame({name: arms[name].map(places[name]) for name in factors}, index=arms.index)
    return arms.loc[order.sort_values(list(factors), kind="stable").index]


def open_levels(arms: Any) -> dict[str, Levels]:
    """Return for each arm the levels of the factors that it has open."""
    return {
        str(arm): {str(name): str(level) for name, level in row.items() if not pd.isna(level)}
        for arm, row in zip(arms.index, arms.to_dict("records"), strict=True)
    }


def _check(
    settings: dict[str, Levels],
    factors: Sequence[str],
    compare: Mapping[str, tuple[str, str]],
    where: Mapping[str, str],
) -> None:
    if not 1 <= len(compare) <= 2:
        raise SpecError(f"a contrast compares the levels of one factor or of two, got {len(compare)}")
    for name in (*compare, *where):
        if name not in factors:
            raise SpecError(f"unknown factor {short(name)}; expected {one_of(factors)}{nearest(name, factors)}")
    for name in where:
        if name in compare:
            raise SpecError(f"factor {name!r} is compared, so `where` cannot fix it")
    asked = [(name, level) for name, pair in compare.items() for level in pair]
    for name, level in (*asked, *where.items()):
        known = list(dict.fromkeys(levels[name] for levels in settings.values() if name in levels))
        if level not in known:
            raise SpecError(f"{short(level)} is no level of {name}; expected {one_of(known)}{nearest(level, known)}")
    for name, (first, second) in compare.items():
        if first == second:
            raise SpecError(f"{name}: a level is compared with itself ({short(first)})")


def _combinations(compare: Mapping[str, tuple[str, str]]) -> list[tuple[float, Levels]]:
    """Return (sign, levels) of each combination of the levels compared: `to` counts positive, `from` negative."""
    return [
        (
            float((-1) ** (len(ends) - sum(ends))),
            {name: pair[end] for (name, pair), end in zip(compare.items(), ends, strict=True)},
        )
        for ends in product((0, 1), repeat=len(compare))
    ]


def _cells(
    settings: dict[str, Levels], compare: Mapping[str, tuple[str, str]], where: Mapping[str, str]
) -> list[list[str]]:
    """Return the arms of each combination of the levels compared."""
    cells = [
        [arm for arm, levels in settings.items() if wanted.items() <= levels.items()]
        for _, wanted in _combinations(compare)
    ]
    for name, level in where.items():
        opened = [any(name in settings[arm] for arm in cell) for cell in cells]
        if any(opened):
            cells = [
                [arm for arm in cell if settings[arm].get(name) == level] if opens else cell
                for cell, opens in zip(cells, opened, strict=True)
            ]
    return cells


def _contexts(cells: list[list[str]], others: Sequence[str], settings: dict[str, Levels]) -> Iterator[list[list[str]]]:
    """Yield the arms of each cell in each setting of the other factors that all cells have.

    Factors open in all arms first: what they open is then open in all or in none of a cell's arms that are left.
    """
    if not all(cells):
        return
    common = [name for name in others if all(name in settings[arm] for cell in cells for arm in cell)]
    if not common:
        yield cells
        return
    groups: list[dict[tuple[str, ...], list[str]]] = []
    for cell in cells:
        found: dict[tuple[str, ...], list[str]] = {}
        for arm in cell:
            found.setdefault(tuple(settings[arm][name] for name in common), []).append(arm)
        groups.append(found)
    rest = [name for name in others if name not in common]
    for key in groups[0]:
        if all(key in found for found in groups):
            yield from _contexts([found[key] for found in groups], rest, settings)


def _centre(arms: list[str], settings: dict[str, Levels]) -> str:
    return min(arms, key=lambda arm: sum(len(settings[arm].items() ^ settings[other].items()) for other in arms))


def _least_squares(
    settings: dict[str, Levels], compare: Mapping[str, tuple[str, str]], where: Mapping[str, str]
) -> dict[str, float]:
    """Return the least-squares weights of smallest norm that give the effect and cancel all others of the model."""
    arms = [arm for arm, levels in settings.items() if all(levels.get(name) == level for name, level in where.items())]
    target = {tuple(sorted(levels.items())): sign for sign, levels in _combinations(compare)}
    terms = {key: [0.0] * len(arms) for key in target}
    for row, arm in enumerate(arms):
        for order in range(len(compare) + 1):
            for key in combinations(sorted(settings[arm].items()), order):
                terms.setdefault(key, [0.0] * len(arms))[row] = 1.0
    columns = np.array(list(terms.values())).reshape(len(terms), len(arms))
    wanted = np.array([target.get(key, 0.0) for key in terms])
    weights = np.linalg.lstsq(columns, wanted, rcond=None)[0] if arms else np.zeros(0)
    if not np.allclose(columns @ weights, wanted, atol=1e-8):
        raise SpecError(_missing(settings, compare, where))
    return {arm: float(w) for arm, w in zip(arms, weights, strict=True) if abs(w) > 1e-12}


def _missing(settings: dict[str, Levels], compare: Mapping[str, tuple[str, str]], where: Mapping[str, str]) -> str:
    """Say why there is no such contrast: which cell has no arm, or that no two arms differ in this alone."""

    def said(levels: Mapping[str, str]) -> str:
        return ", ".join(f"{name}={level}" for name, level in levels.items())

    for (_, wanted), arms in zip(_combinations(compare), _cells(settings, compare, where), strict=True):
        if not arms:
            return f"no arm has {said({**wanted, **where})}"
    limits = f" where {said(where)}" if where else ""
    if len(compare) == 1:
        name, (first, second) = next(iter(compare.items()))
        return f"{name} {first} and {second} never meet in the same setting of the other factors{limits}"
    return f"{' × '.join(compare)}: no setting of the other factors{limits} has all four combinations"
