"""Shares of variance: functions whose Sobol' indices are known, noise that is the seed's, and what cannot be told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stemlab.analysis.sensitivity import sensitivity
from stemlab.errors import SpecError


def drawn(function, draws, seeds=1, noise=0.0, names="abc", seed=0):
    """Runs of one arm; the nuisances are uniform over 0..1."""
    rng = np.random.default_rng(seed)
    points = rng.random((draws, len(names)))
    rows = [
        {"arm": "one", "draw": d, "seed": s, **dict(zip(names, point, strict=True)), "value": y + noise * rng.normal()}
        for d, (point, y) in enumerate(zip(points, function(points.T), strict=True))
        for s in range(seeds)
    ]
    return pd.DataFrame(rows)


def shares(frame, names="abc", **settings):
    return sensitivity(frame, dict.fromkeys(names, False), **settings).frame.set_index("parameter")["share"]


def mean_shares(function, repeats=30, **settings):
    return pd.concat(
        [shares(drawn(function, seed=seed, **settings), settings.get("names", "abc"), resamples=100)
         for seed in range(repeats)], axis=1
    ).mean(axis=1)  # fmt: skip


def two_parts(points):
    """A curved part of variance 1 and a straight one of 0.36."""
    a, b = 2 * points - 1
    return np.sqrt(5) * (1.5 * a**2 - 0.5) + 0.6 * np.sqrt(3) * b


def ishigami(points):
    """Ishigami & Homma 1990: first-order indices 0.3139, 0.4424, 0 and an interaction of 0.2437."""
    a, b, c = np.pi * (2 * points - 1)
    return np.sin(a) + 7 * np.sin(b) ** 2 + 0.1 * c**4 * np.sin(a)


def test_an_additive_function_is_shared_exactly():
    found = shares(drawn(two_parts, draws=2000, names="ab"), "ab", resamples=100)
    assert dict(found) == pytest.approx({"a": 1 / 1.36, "b": 0.36 / 1.36, "rest": 0.0}, abs=0.03)


def test_ishigami_with_64_draws():
    found = mean_shares(ishigami, draws=64)
    assert dict(found) == pytest.approx({"a": 0.314, "b": 0.442, "c": 0.0, "rest": 0.244}, abs=0.06)


@pytest.mark.parametrize("draws", [16, 32])
def test_noise_within_draws_is_the_seeds(draws):
    found = mean_shares(two_parts, draws=draws, seeds=3, noise=0.8, names="ab")
    assert dict(found) == pytest.approx({"a": 0.5, "b": 0.18, "seed": 0.32, "rest": 0.0}, abs=0.08)


def test_with_one_seed_its_noise_is_in_the_rest_which_is_said():
    frame = drawn(two_parts, draws=500, noise=0.8, names="ab")
    assert dict(shares(frame, "ab")) == pytest.approx({"a": 0.5, "b": 0.18, "rest": 0.32}, abs=0.06)
    assert "one: one seed a draw, so rest holds the seed" in sensitivity(frame, {"a": False, "b": False}).method


def test_noise_alone_gives_no_nuisance_a_share_to_speak_of():
    found = mean_shares(lambda points: 0 * points[0], draws=16, seeds=3, noise=1.0)
    assert found["seed"] > 0.8
    assert found[["a", "b", "c"]].max() < 0.06


def test_the_logarithm_is_taken_where_it_is_drawn_in_it():
    frame = drawn(lambda points: points[0], draws=24, names="a")
    frame["a"] = 10.0 ** (-4 * frame["a"])
    assert sensitivity(frame, {"a": True}).frame["share"][0] == pytest.approx(1.0, abs=1e-6)
    frame.loc[3, "a"] = 0.0
    with pytest.raises(SpecError, match="a is on a logarithmic scale, so it must be above 0, got 0"):
        sensitivity(frame, {"a": True})


def test_intervals_hold_what_is_so():
    inside = []
    for seed in range(60):
        frame = drawn(two_parts, draws=24, noise=0.8, names="ab", seed=seed)
        found = sensitivity(frame, {"a": False, "b": False}, resamples=200).frame
        inside.append((found["low"] <= [0.5, 0.18, 0.32]) & (found["high"] >= [0.5, 0.18, 0.32]))
    assert np.mean(inside) >= 0.88


def test_too_few_draws_are_said_and_not_made_up_for():
    result = sensitivity(drawn(two_parts, draws=5, names="ab"), {"a": False, "b": False})
    assert result.frame["share"].isna().all()
    assert "one: 5 draws are too few, with 2 nuisances 6 are needed" in result.method
    assert shares(drawn(two_parts, draws=6, names="ab"), "ab").notna().all()


@pytest.mark.filterwarnings("error")
def test_results_that_are_all_the_same_have_no_shares():
    frame = drawn(lambda points: 0 * points[0] + 0.1, draws=8, seeds=3)
    assert (shares(frame) == 0).all()


def test_what_an_arm_has_not_opened_has_no_row_and_failed_runs_are_left_out():
    frame = drawn(two_parts, draws=12, names="ab")
    frame.loc[2, "value"] = np.nan
    other = frame.assign(arm="other", b=np.nan)
    found = sensitivity(pd.concat([frame, other]), {"a": False, "b": False}).frame
    assert list(found[found["arm"] == "other"]["parameter"]) == ["a", "rest"]
    assert set(found["draws"]) == {11}


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(SpecError, match=r"column \(='lrr'\) is not in the frame; expected one of .*lr"):
        sensitivity(drawn(two_parts, draws=6, names=["lr", "wd"]), {"lrr": True})
    with pytest.raises(SpecError, match="nothing was drawn"):
        sensitivity(drawn(two_parts, draws=6, names="ab"), {})
