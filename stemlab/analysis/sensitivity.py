"""Which of the things drawn moves the results: shares of the variance of one arm's runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.polynomial import legendre
from numpy.typing import NDArray

from ..errors import SpecError
from .checks import need_columns
from .result import Result

Array = NDArray[np.float64]
_MOST_DEGREE = 6


def sensitivity(
    frame: Any,
    nuisances: Mapping[str, bool],
    value: str = "value",
    by: str = "arm",
    confidence: float = 0.95,
    resamples: int = 500,
    seed: int = 0,
) -> Result:
    """Return what share of the variance of an arm's results each nuisance has, the seed, and the rest.

    `nuisances` holds name -> whether it is drawn on a logarithmic scale; `frame` has a column for each of them and
    `draw`, one row a run. Rows: arm, parameter, share (0..1), low, high, draws. A share is the first-order Sobol' index
    (Sobol' 2001, Math. Comput. Simul. 55:271) from the draws as they are, by the variances of the terms of a
    polynomial without interactions (Sudret 2008, Reliab. Eng. Syst. Saf. 93:964), less what noise alone would give
    them. Its degree, 1 to 6, has the least leave-one-out error (Blatman & Sudret 2011, J. Comput. Phys. 230:2345).
    `seed` is the variance within draws; `rest` are interactions of nuisances and what no polynomial caught, and the
    seed too where each draw has one seed. Intervals: percentile bootstrap over draws. A polynomial has two draws for
    each of its coefficients, so shares are missing below 2 * (nuisances + 1) draws. A nuisance that an arm has not
    opened, or that is the same in all its draws, has no row.
    """
    need_columns(frame, by, "draw", value, *nuisances)
    if not nuisances:
        raise SpecError("nothing was drawn: sensitivity needs a nuisance")
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for arm, runs in frame[np.isfinite(frame[value])].groupby(by, sort=False):
        found, note = _of_arm(runs, nuisances, value, confidence, resamples, np.random.default_rng(seed))
        rows += [{by: arm, **row} for row in found]
        notes += [f"{arm}: {note}."] if note else []
    return Result(
        "Share of the variance of results",
        pd.DataFrame(rows, columns=[by, "parameter", "share", "low", "high", "draws"]),
        " ".join(
            [
                "First-order Sobol' indices by polynomials without interactions (Sudret 2008), the degree chosen by "
                f"leave-one-out error (Blatman & Sudret 2011); {confidence:.0%} percentile bootstrap intervals over "
                "draws. rest: interactions and what no polynomial caught; few draws allow straight lines only.",
                *notes,
            ]
        ),
    )


def _of_arm(
    runs: Any, nuisances: Mapping[str, bool], value: str, confidence: float, resamples: int, rng: np.random.Generator
) -> tuple[list[dict[str, Any]], str]:
    """Return the rows of one arm, and in words what could not be told."""
    draws = runs.groupby("draw", sort=True)
    means = draws[value].mean().to_numpy(dtype=float)
    means = means - means[0]  # so that results that are all the same vary by nothing, not by rounding
    inputs = {name: draws[name].first().to_numpy(dtype=float) for name in nuisances}
    scaled = {
        name: _scaled(name, values, nuisances[name])
        for name, values in inputs.items()
        if np.isfinite(values).all() and np.ptp(values) > 0
    }
    n = len(means)
    enough = 2 * (len(scaled) + 1)
    repeats = draws[value].count().to_numpy(dtype=float)
    has_seeds = bool((repeats > 1).any())
    names = [*scaled, *(["seed"] if has_seeds else []), "rest"]
    if n < enough:
        missing = [{"parameter": name, "share": np.nan, "low": np.nan, "high": np.nan, "draws": n} for name in names]
        return missing, f"{n} draws are too few, with {len(scaled)} nuisances {enough} are needed"
    columns, owner = _polynomial(list(scaled.values()), means)
    # Draws by their sums of squares and degrees of freedom, so that draws of few seeds count for little.
    within = (draws[value].var(ddof=1).fillna(0.0).to_numpy(dtype=float) * (repeats - 1), repeats - 1, 1 / repeats)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    weights = np.vstack([np.ones(n), counts[(counts > 0).sum(axis=1) > columns.shape[1] + 1]])
    shares = _shares(columns, owner, means, within, weights, has_seeds)
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = np.quantile(shares[1:] if len(shares) > 1 else shares, tails, axis=0)
    return [
        {"parameter": name, "share": share, "low": lo, "high": hi, "draws": n}
        for name, share, lo, hi in zip(names, shares[0], low, high, strict=True)
    ], "" if has_seeds else "one seed a draw, so rest holds the seed as well"


def _scaled(name: str, values: Array, log: bool) -> Array:
    """Return values mapped to -1..1, in the logarithm where they are drawn in it."""
    if log and (values <= 0).any():
        raise SpecError(f"{name} is on a logarithmic scale, so it must be above 0, got {values.min():g}")
    values = np.log(values) if log else values
    return np.asarray(2 * (values - values.min()) / np.ptp(values) - 1)


def _polynomial(inputs: Sequence[Array], means: Array) -> tuple[Array, list[int]]:
    """Return the centred columns of the polynomial with the least leave-one-out error, and whose each is."""
    n = len(means)
    candidates: list[tuple[float, Array, list[int]]] = []
    for degree in range(1, _MOST_DEGREE + 1):
        # k different values carry a polynomial of degree k - 1.
        degrees = [min(degree, len(np.unique(x)) - 1) for x in inputs]
        if degree > 1 and 2 * (1 + sum(degrees)) > n:
            break
        terms = [legendre.legvander(x, d)[:, 1:] for x, d in zip(inputs, degrees, strict=True)]
        columns = np.hstack([np.empty((n, 0)), *terms])
        columns = columns - columns.mean(axis=0)
        hat = columns @ np.linalg.pinv(columns) + 1 / n
        left_out = (means - hat @ means) / np.maximum(1 - np.diag(hat), 1e-9)
        owner = [i for i, own in enumerate(degrees) for _ in range(own)]
        candidates.append((float(left_out @ left_out), columns, owner))
    _, columns, owner = min(candidates, key=lambda candidate: candidate[0])
    return columns, owner


def _shares(
    columns: Array,
    owner: list[int],
    means: Array,
    within: tuple[Array, Array, Array],
    weights: Array,
    has_seeds: bool,
) -> Array:
    """Return (resamples, parameters) of shares; `weights` (resamples, draws) says how often each draw counts."""
    n, terms = columns.shape
    share = (weights / n)[:, :, None]
    design = columns[None] - (share * columns).sum(axis=1, keepdims=True)
    response = means[None] - (share[..., 0] * means).sum(axis=1, keepdims=True)
    gram = np.swapaxes(design * share, 1, 2) @ design
    inverse = np.linalg.pinv(gram, hermitian=True)
    slopes = (inverse @ np.swapaxes(design * share, 1, 2) @ response[:, :, None])[..., 0]
    residual = response - (design @ slopes[:, :, None])[..., 0]
    noise = (share[..., 0] * residual**2).sum(axis=1) * n / (n - terms - 1)
    variance = (share[..., 0] * response**2).sum(axis=1) * n / (n - 1)
    explained = []
    for parameter in range(max(owner, default=-1) + 1):
        own = [i for i, other in enumerate(owner) if other == parameter]
        block = gram[:, own][:, :, own]
        found = np.einsum("ri,rij,rj->r", slopes[:, own], block, slopes[:, own]) * n / (n - 1)
        chance = noise / (n - 1) * np.einsum("rij,rji->r", block, inverse[:, own][:, :, own])
        explained.append(np.clip(found - chance, 0, None))
    squares, freedom, per_run = within
    seed = (weights @ squares) / np.maximum(weights @ freedom, 1)
    between = np.clip(variance - seed * (weights @ per_run) / n, 0, None)
    rest = np.clip(between - np.sum(explained, axis=0), 0, None)
    parts = np.stack([*explained, *([seed] if has_seeds else []), rest], axis=1)
    # Nothing varies: no parameter has a share of it.
    total = np.where(between + seed > 0, between + seed, 1.0)
    return np.asarray(np.clip(parts / total[:, None], 0, 1))
