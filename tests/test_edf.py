"""Error distribution functions: by hand, against scipy, and in simulated studies of known truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import integrate, stats
from studies import study

from stemlab.analysis import resampling
from stemlab.analysis.edf import compare_edfs, edf, half_width, ks_test
from stemlab.errors import SpecError

INF, NAN = np.inf, np.nan


def study_of_errors(**errors):
    """A study whose errors are exactly these; infinite ones diverged."""
    frame = study(**errors)
    return frame.assign(error=np.concatenate([np.ravel(values) for values in errors.values()]))


def of(result, arm):
    return result.frame[result.frame["arm"] == arm].drop(columns="arm").reset_index(drop=True)


def fraction_at(steps, error, column="fraction"):
    return steps[column][np.searchsorted(steps["error"], error, side="right") - 1]


# Error distribution functions.


def test_an_edf_by_hand():
    result = edf(study_of_errors(a=[0.5, 0.25, INF, 0.25], b=[INF, INF, INF, NAN]))
    a = of(result, "a")
    assert a["error"].tolist() == [0, 0.25, 0.5]
    assert a["fraction"].tolist() == [0, 0.5, 0.75]  # the last draw never gets there
    half = stats.kstwo.ppf(0.95, 4)
    assert a["low"].tolist() == pytest.approx([0, 0, 0.75 - half])
    assert a["high"].tolist() == pytest.approx([half, 1, 1])
    assert (a["n"] == 4).all()
    b = of(result, "b")
    assert (b["error"].tolist(), b["fraction"].tolist(), b["n"].tolist()) == ([0], [0], [3])


def test_a_draw_counts_once_and_one_diverged_seed_is_enough():
    a = of(edf(study_of_errors(a=[[0.25, 0.75], [0.5, INF], [0.25, NAN]])), "a")
    assert a["error"].tolist() == [0, 0.25, 0.5]
    assert a["fraction"].tolist() == pytest.approx([0, 1 / 3, 2 / 3])
    assert a["n"].tolist() == [3, 3, 3]


def test_where_errors_begin():
    assert of(edf(study_of_errors(a=[0.0, 1.0])), "a")["fraction"].tolist() == [0.5, 1]
    result = edf(study_of_errors(a=[-2.0, 1.0], b=[0.0, 1.0]))
    assert of(result, "a")["error"].tolist() == [-2, 1]
    assert of(result, "b")["error"].tolist() == [-2, 0, 1]


def test_an_arm_of_which_nothing_is_known():
    b = of(edf(study_of_errors(a=[0.5, 0.25], b=[NAN, NAN])), "b")
    assert b["fraction"].isna().all()
    assert (b["low"].tolist(), b["high"].tolist(), b["n"].tolist()) == ([0], [1], [0])


errors = st.integers(0, 12).map(lambda i: i / 12 if i < 12 else INF)
both = st.integers(1, 9).flatmap(lambda n: st.tuples(*[arrays(float, n, elements=errors)] * 2))


@given(both, st.sampled_from([0.5, 0.9, 0.99]))
def test_an_edf_rises_from_0_to_at_most_1_within_its_band(pair, confidence):
    result = edf(study_of_errors(a=pair[0], b=pair[1]), confidence=confidence)
    for arm, values in zip("ab", pair, strict=True):
        steps = of(result, arm)
        assert (np.diff(steps["error"]) > 0).all()
        for lower, higher in itertools.pairwise(["low", "fraction", "high"]):
            assert (steps[lower] <= steps[higher]).all()
        for name in ("low", "fraction", "high"):
            assert (np.diff(steps[name]) >= 0).all()
            assert steps[name].between(0, 1).all()
        for error in values[np.isfinite(values)]:
            assert fraction_at(steps, error) == pytest.approx(np.mean(values <= error))
        assert steps["fraction"].iloc[-1] == pytest.approx(np.isfinite(values).mean())


def test_the_band_is_tighter_than_that_of_dvoretzky_kiefer_and_wolfowitz():
    for n in (5, 8, 24, 64):
        assert 0.85 < half_width(n, 0.95) / math.sqrt(math.log(2 / 0.05) / (2 * n)) < 1


@pytest.mark.parametrize("n", [5, 12, 48])
def test_the_band_holds_the_whole_true_distribution(n):
    """Uniform errors, of which one in ten diverges: F(e) = 0.9 e."""
    rng = np.random.default_rng(n)
    held = 0
    studies = 2000
    drawn = np.sort(np.where(rng.random((studies, n)) < 0.1, INF, rng.random((studies, n))), axis=1)
    for start in range(0, studies, 100):
        # A hundred studies as a hundred arms.
        part = drawn[start : start + 100]
        frame = pd.DataFrame({"arm": np.repeat(np.arange(100), n), "error": part.ravel()})
        result = edf(frame.assign(draw=np.tile(np.arange(n), 100), seed=0)).frame
        after = result.groupby("arm")["error"].shift(-1).fillna(1.0)
        # Between two steps the truth rises and the band does not: it is nearest to leaving at their ends.
        inside = (result["low"] <= 0.9 * result["error"] + 1e-12) & (0.9 * after <= result["high"] + 1e-12)
        held += int(inside.groupby(result["arm"]).all().sum())
    assert held / studies >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / studies)
    assert held / studies <= 0.985  # it is no wider than it must be


# Comparing them.


def row(result, arm):
    return result.frame.set_index("arm").loc[arm]


def test_a_comparison_by_hand():
    result = compare_edfs(study_of_errors(base=[0.5, 0.75, 0.5, 1.0], a=[0.25, 0.25, 0.5, 1.0]), "base")
    a = row(result, "a")
    assert a["n"] == 4
    assert a["area"] == (0.25 + 0.5) / 4
    assert (a["q25"], a["q50"], a["q75"]) == (0.25 - 0.5, 0.25 - 0.5, 0.5 - 0.75)
    assert a["distance"] == 0.5  # at 0.25 half of a is there and none of the baseline
    # Draws 3 and 4 are alike, and swapping 1 or 2 lowers the gap at 0.25, unless both are.
    assert a["p"] == 0.5
    assert a["p_corrected"] == 0.5
    assert a["area_low"] < 0.1875 < a["area_high"]


def test_the_area_is_that_between_the_curves_up_to_the_limit():
    rng = np.random.default_rng(0)
    values = {"base": rng.random(9), "a": np.where(rng.random(9) < 0.3, INF, rng.random(9))}
    frame = study_of_errors(**values)
    for limit, end in ((None, max(x[np.isfinite(x)].max() for x in values.values())), (1.0, 1.0), (2.5, 2.5)):
        at = np.linspace(0, end, 2001)
        steps = of(edf(frame), "a"), of(edf(frame), "base")
        gap = [fraction_at(steps[0], e) - fraction_at(steps[1], e) for e in at]
        area = row(compare_edfs(frame, "base", limit=limit, resamples=200), "a")["area"]
        assert area == pytest.approx(integrate.trapezoid(gap, at), abs=2e-3 * end)


def test_a_diverged_draw_stands_at_the_end_of_the_axis():
    frame = study_of_errors(base=[0.25, 0.25, 0.5, 0.5], a=[0.25, INF, INF, INF], b=[INF] * 4)
    a = row(compare_edfs(frame, "base", limit=1), "a")
    assert a["q50"] == 1 - 0.25
    assert a["area"] == -(0.75 + 0.5 + 0.5) / 4
    assert a["distance"] == 0.75
    b = row(compare_edfs(frame, "base"), "b")
    assert b["distance"] == 1
    assert b["area"] == -(0.25 + 0.25) / 4  # up to 0.5, the largest finite error
    assert np.isfinite(b.astype(float)).all()


def test_arms_that_are_alike_and_arms_that_are_missing():
    e = [0.2, 0.3, 0.4, INF]
    result = compare_edfs(study_of_errors(base=e, same=e, gone=[NAN] * 4, once=[NAN, NAN, 0.5, NAN]), "base")
    same = row(result, "same")
    assert same.drop(["n", "p", "p_corrected"]).eq(0).all()
    assert same["p"] == 1
    assert row(result, "gone")["n"] == 0
    assert row(result, "gone").drop("n").isna().all()
    once = row(result, "once")
    assert (once["n"], once["q50"], once["p"]) == (1, pytest.approx(0.1), 1)
    assert math.isnan(once["q50_low"])
    all_diverged = row(compare_edfs(study_of_errors(base=[INF, INF], a=[INF, INF]), "base"), "a")
    assert (all_diverged["area"], all_diverged["distance"], all_diverged["p"]) == (0, 0, 1)


def test_the_distance_is_scipys():
    rng = np.random.default_rng(1)
    for n in (4, 9, 20):
        x, y = rng.random(n).round(1), (rng.random(n) + 0.2).round(1)
        assert ks_test(x, y)[0] == pytest.approx(stats.ks_2samp(x, y).statistic)
        x[0] = y[1] = INF
        assert ks_test(x, y)[0] == pytest.approx(stats.ks_2samp(x, y).statistic)


def test_p_counts_the_ways_to_swap_the_arms():
    rng = np.random.default_rng(2)
    x, y = rng.random(7).round(1), (rng.random(7) * 1.5).round(1)
    distances = [
        stats.ks_2samp(*np.where(swapped, [y, x], [x, y]), method="asymp").statistic
        for swapped in itertools.product([False, True], repeat=7)
    ]
    distance, p = ks_test(x, y)
    assert p == pytest.approx(np.mean(np.array(distances) >= distance - 1e-9))
    assert 0.02 < p < 0.98


def test_random_swaps_come_near_to_all(monkeypatch):
    rng = np.random.default_rng(3)
    x, y = rng.random(13), rng.random(13) + 0.15
    exact = ks_test(x, y)
    monkeypatch.setattr(resampling, "EXACT_UNITS", 12)
    distance, p = ks_test(x, y)
    assert distance == exact[0]
    assert p != exact[1]
    assert p == pytest.approx(exact[1], abs=4 * 0.5 / 100)


def test_more_arms_need_more_evidence():
    rng = np.random.default_rng(4)
    base = rng.random(12)
    arms = {f"a{i}": base + 0.1 * i + 0.2 * rng.random(12) for i in range(3)}
    result = compare_edfs(study_of_errors(base=base, **arms), "base").frame
    np.testing.assert_array_equal(result["p_corrected"], resampling.holm(result["p"]))
    bare = compare_edfs(study_of_errors(base=base, **arms), "base", correction="none").frame
    np.testing.assert_array_equal(bare["p_corrected"], bare["p"])


@given(both)
def test_swapping_the_arms_negates_what_has_a_sign(pair):
    frame = study_of_errors(a=pair[0], b=pair[1])
    one, other = (row(compare_edfs(frame, base, resamples=200), arm) for base, arm in (("a", "b"), ("b", "a")))
    for name in ("area", "q25", "q50", "q75"):
        assert one[name] == -other[name]
        if len(pair[0]) > 1:
            assert one[f"{name}_low"] == pytest.approx(-other[f"{name}_high"], abs=1e-12)
            assert one[f"{name}_low"] <= one[name] <= one[f"{name}_high"]
    assert (one["distance"], one["p"]) == (other["distance"], other["p"])


@pytest.mark.parametrize("n", [8, 24])
def test_quartiles_are_covered(n):
    """The true difference of the quartiles of two normal arms that share their draws."""
    rng = np.random.default_rng(n)
    studies, deviations = 200, (0.05, math.hypot(0.05, 0.03))
    base = rng.normal(0.3, deviations[0], (studies, n))
    arms = base + rng.normal(0.05, 0.03, (studies, n))
    held = {25: 0, 50: 0, 75: 0}
    for e, others in zip(arms, base, strict=True):
        found = row(compare_edfs(study_of_errors(base=others, a=e), "base", resamples=200), "a")
        for q in held:
            truth = 0.05 + stats.norm.ppf(q / 100) * (deviations[1] - deviations[0])
            held[q] += found[f"q{q}_low"] <= truth <= found[f"q{q}_high"]
    assert min(held.values()) / studies >= 0.93


def test_equal_arms_are_rarely_told_apart():
    rng = np.random.default_rng(6)
    draws = rng.gamma(2, size=(400, 1, 10))
    x, y = np.moveaxis(draws + rng.gamma(1, size=(400, 2, 10)), 1, 0)
    p = np.array([ks_test(a, b)[1] for a, b in zip(x, y, strict=True)])
    assert np.mean(p <= 0.05) <= 0.07
    assert np.mean(p <= 0.5) > 0.2  # and p is no 1 for all


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baseline": "bas"}, "did you mean 'base'"),
        ({"value": "eror"}, "did you mean 'error'"),
        ({"limit": INF}, r"limit \(=inf\): expected a finite number above 0"),
        ({"limit": -1}, r"limit \(=-1\)"),
        ({"confidence": 0}, r"confidence \(=0\)"),
        ({"correction": "bonferroni"}, "expected one of holm, bh, none"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(SpecError, match=message):
        compare_edfs(study_of_errors(base=[0.5], a=[0.5]), **({"baseline": "base"} | arguments))
    with pytest.raises(SpecError, match="confidence"):
        edf(study_of_errors(base=[0.5]), confidence=1)
