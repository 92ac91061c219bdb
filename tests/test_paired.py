"""Paired comparisons: known answers, other implementations, invariants, and simulated studies of known truth."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from studies import study

from stemlab.analysis import resampling
from stemlab.analysis.paired import compare, holm, interval, sign_flip
from stemlab.analysis.resampling import benjamini_hochberg, intervals, sign_flips
from stemlab.errors import SpecError

NAN = np.nan
# Multiples of 1/64, so that differences and sums are exact and ties are common.
values = st.integers(-640, 640).map(lambda i: i / 64)
samples = st.integers(2, 12).flatmap(lambda n: arrays(float, n, elements=values))


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def row(result, arm):
    return result.frame.set_index(result.frame.columns[0]).loc[arm]


# Known answers.


def test_a_comparison_by_hand():
    result = compare(study(base=[1, 2, 3, 4], a=[2, 4, 3, 8], b=[0, 1, 2, 3]), "base")
    assert list(result.frame["arm"]) == ["a", "b"]
    a = row(result, "a")  # differences 1, 2, 0, 4
    assert (a["n"], a["mean"], a["baseline_mean"], a["difference"]) == (4, 4.25, 2.5, 1.75)
    assert a["better"] == (3 + 0.5) / 4
    assert a["p"] == 4 / 16  # 7 is reached where all signs are alike, whatever that of the zero
    assert row(result, "b")["p"] == 2 / 16
    assert list(result.frame["p_corrected"]) == [0.25, 0.25]
    assert "paired by draw" in result.method
    half = stats.t.ppf(0.975, 3) * np.std([1, 2, 0, 4], ddof=1) / 2  # too few for the bootstrap
    assert [a["low"], a["high"]] == pytest.approx([1.75 - half, 1.75 + half])


def test_pairs_are_formed_of_what_both_have():
    result = compare(study(base=[1, 2, NAN, 4], a=[2, NAN, 3, 8], b=[NAN, NAN, 9, NAN]), "base")
    a = row(result, "a")
    assert (a["n"], a["mean"], a["baseline_mean"], a["difference"]) == (2, 5, 2.5, 2.5)
    lone = row(result, "b")  # no unit in common: nothing is known, and it counts for no correction
    assert lone["n"] == 0
    assert lone.drop("n").isna().all()
    assert row(result, "a")["p_corrected"] == row(result, "a")["p"]
    assert "–" in repr(result)


def test_one_pair_has_no_interval_and_proves_nothing():
    a = row(compare(study(base=[1], a=[2]), "base"), "a")
    assert np.isnan([a["low"], a["high"]]).all()
    assert (a["n"], a["difference"], a["p"]) == (1, 1, 1)


def test_equal_differences_have_an_interval_of_no_width():
    base = np.array([0.1, 0.2, 0.3, 0.7, 0.9, 0.15])
    result = compare(study(base=base, same=base, more=base + 0.1), "base")
    assert list(row(result, "same")[["difference", "low", "high", "p"]]) == [0, 0, 0, 1]
    more = row(result, "more")
    assert more["p"] == 2 / 2**6
    assert list(more[["low", "difference", "high"]]) == pytest.approx([0.1] * 3)


def test_what_rounding_leaves_of_equal_means_is_no_difference():
    assert 0.1 + 0.2 != 0.3
    a = row(compare(study(base=[0.3] * 8, a=[0.1 + 0.2] * 8), "base"), "a")
    assert list(a[["difference", "low", "high", "p", "better"]]) == [0, 0, 0, 1, 0.5]


@pytest.mark.parametrize(
    ("n", "correction", "arms", "said"),
    [
        (4, "holm", 1, "p is at least 0.12, whatever"),
        (5, "none", 1, "p is at least 0.062, whatever"),
        (6, "none", 1, None),
        (6, "holm", 2, "p is at least 0.031 and 0.062 once corrected"),
        (6, "bh", 2, None),
        (7, "holm", 2, None),
    ],
)
def test_the_method_says_when_no_difference_could_be_found(n, correction, arms, said):
    frame = study(base=np.zeros(n), **{f"a{i}": np.ones(n) for i in range(arms)})
    result = compare(frame, "base", correction=correction)
    # All differences point one way: p is as small as it gets.
    found = (result.frame["p_corrected"] <= 0.05).all()
    assert found == (said is None)
    assert (said or "resamples") in result.method
    assert ("out of reach" in result.method) == (said is not None)


def test_levels_of_a_factor_are_compared_over_their_arms():
    frame = study(a=[1, 2, 3], b=[2, 4, 6], c=[5, 7, 9], d=[6, 7, 8])
    frame["width"] = frame["arm"].map({"a": "64", "b": "64", "c": "128", "d": "128"})
    result = compare(frame, "64", by="width")
    assert list(result.frame["width"]) == ["128"]
    assert row(result, "128")["difference"] == (4 + 4 + 4) / 3


# Other implementations.


def test_the_sign_flip_test_is_scipys_permutation_test():
    rng = np.random.default_rng(1)
    for n in (2, 5, 9, 12, 15):
        d = rng.normal(0.4, 1, n).round(1)  # ties
        options = {"permutation_type": "samples", "vectorized": True, "n_resamples": np.inf}
        theirs = stats.permutation_test((d,), lambda x, axis: np.mean(x, axis=axis), **options)
        assert sign_flip(d) == pytest.approx(theirs.pvalue, abs=1e-12)


def test_random_flips_come_near_to_all_flips(monkeypatch):
    d = np.random.default_rng(2).normal(0.6, 1, (40, 14))
    exact = sign_flips(d)
    monkeypatch.setattr(resampling, "EXACT_UNITS", 13)
    drawn = sign_flips(d)
    assert not np.array_equal(exact, drawn)
    assert np.abs(drawn - exact).max() < 4 * 0.5 / 100  # of 10,000 flips, four standard errors
    assert sign_flip(np.ones(40)) == 1 / 10_001  # the seen one counts, so p is never 0


def test_the_sign_flip_test_is_close_to_the_t_test():
    d = np.random.default_rng(3).normal(0.4, 1, (50, 24))
    assert np.abs(sign_flips(d) - stats.ttest_1samp(d, 0, axis=1).pvalue).max() < 0.03


def test_wilcoxon_is_scipys():
    rng = np.random.default_rng(4)
    base, a = rng.normal(size=12), rng.normal(0.5, 1, 12)
    tied = base + np.array([0, 0, 1, 1, -1, 2, 2, 3, 1, 1, 0, 2])
    result = compare(study(base=base, a=a, tied=tied, same=base), "base", test="wilcoxon")
    assert row(result, "a")["p"] == stats.wilcoxon(a - base).pvalue
    assert row(result, "tied")["p"] == stats.wilcoxon((tied - base).round(6)).pvalue
    assert row(result, "same")["p"] == 1
    assert "Wilcoxon" in result.method


def test_the_interval_is_students_where_nothing_is_skewed_and_wider_where_it_is():
    rng = np.random.default_rng(5)
    normal = rng.normal(3, 2, 200)
    ours = interval(normal)
    theirs = stats.t.interval(0.95, 199, normal.mean(), stats.sem(normal))
    assert ours == pytest.approx(theirs, abs=0.05 * (theirs[1] - theirs[0]))
    skewed = rng.gamma(0.5, size=12)
    low, high = interval(skewed)
    assert high - skewed.mean() > 1.3 * (skewed.mean() - low)


def test_the_interval_is_scipys_bootstrap_t_between_its_bounds():
    d = np.random.default_rng(6).gamma(2, size=16)
    n, error = len(d), stats.sem(d)
    drawn = np.random.default_rng(7).choice(d, (100_000, n))
    t = (drawn.mean(axis=1) - d.mean()) / stats.sem(drawn, axis=1)
    student = stats.t.ppf(0.975, n - 1)
    lower, upper = np.quantile(t, [0.025, 0.975])
    assert -2 * student < lower < -student  # the case is one in which the bootstrap decides an end
    expected = (d.mean() - max(upper, student) * error, d.mean() - lower * error)
    assert interval(d, resamples=50_000) == pytest.approx(expected, abs=0.03 * error)


def test_one_outlier_does_not_send_the_interval_anywhere():
    d = np.array([0.01, 0.012, 0.009, 0.011, 0.01, 0.008, 0.012, -0.7])
    low, high = interval(d)
    half = 2 * stats.t.ppf(0.975, 7) * stats.sem(d)
    assert low >= d.mean() - half - 1e-12
    assert high <= d.mean() + half + 1e-12


def test_holm_by_hand_and_with_nothing_known():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.5, 0.4]), [0.8, 0.8])
    np.testing.assert_array_equal(holm([0.02, NAN, 0.03]), [0.04, NAN, 0.04])
    np.testing.assert_allclose(holm([[0.01, 0.04], [0.04, 0.01]]), [[0.02, 0.04], [0.04, 0.02]])
    assert holm([]).size == 0
    np.testing.assert_allclose(benjamini_hochberg([0.01, NAN, 0.02]), [0.02, NAN, 0.02])


def test_corrections_are_what_they_say():
    rng = np.random.default_rng(8)
    base = rng.normal(size=12)
    frame = study(base=base, **{f"a{i}": base + rng.normal(0.3 * i, 1, 12) for i in range(4)})
    by = {name: compare(frame, "base", correction=name).frame for name in ("none", "holm", "bh")}
    p = by["none"]["p"].to_numpy()
    np.testing.assert_array_equal(by["none"]["p_corrected"], p)
    np.testing.assert_array_equal(by["holm"]["p_corrected"], holm(p))
    np.testing.assert_array_equal(by["bh"]["p_corrected"], stats.false_discovery_control(p))
    assert (by["holm"]["p_corrected"] > p).all()


# Invariants.


@given(samples, samples)
def test_swapping_the_arms_turns_everything_round(x, y):
    n = min(len(x), len(y))
    frame = study(x=x[:n], y=y[:n])
    one = row(compare(frame, "x", resamples=500), "y")
    other = row(compare(frame, "y", resamples=500), "x")
    assert one["difference"] == -other["difference"]
    assert one["p"] == other["p"]
    assert one["better"] == pytest.approx(1 - other["better"])
    assert [one["low"], one["high"]] == pytest.approx([-other["high"], -other["low"]], abs=1e-9)


@given(samples, st.sampled_from([-100.0, 3.0, 1000.0]), st.sampled_from([0.001, 3.0, 128.0]))
def test_what_both_arms_share_changes_nothing_and_the_unit_of_measure_nothing_but_scale(d, added, factor):
    nothing = np.zeros(len(d))
    before, shifted, scaled = (
        row(compare(study(base=base, a=a), "base", resamples=500), "a")
        for base, a in ((nothing, d), (nothing + added, d + added), (nothing, d * factor))
    )
    for after, scale in ((shifted, 1), (scaled, factor)):
        assert after["p"] == before["p"]
        for name in ("difference", "low", "high"):
            assert after[name] == pytest.approx(before[name] * scale, rel=1e-6, abs=1e-6 * scale)


@given(samples, st.randoms())
def test_the_order_of_the_pairs_does_not_matter_to_p(d, random):
    order = random.sample(range(len(d)), len(d))
    assert sign_flip(d) == sign_flip(d[order])
    assert 2 ** (1 - len(d)) <= sign_flip(d) <= 1


@given(samples, st.floats(0.5, 0.98))
def test_intervals_hold_the_mean_and_widen_with_confidence(d, confidence):
    low, high = interval(d, confidence, resamples=500)
    lower, higher = interval(d, confidence + 0.015, resamples=500)
    noise = 1e-9 * max(1, abs(d).max())
    assert lower - noise <= low - noise <= d.mean() <= high + noise <= higher + 2 * noise
    student = stats.t.ppf((1 + confidence) / 2, len(d) - 1) * stats.sem(d)
    assert student * 2 - noise <= high - low <= student * 4 + noise


@given(st.lists(st.floats(0, 1) | st.just(NAN), max_size=8))
def test_corrected_p_values_keep_their_order(p):
    corrected = holm(p)
    known = ~np.isnan(p)
    assert (np.isnan(corrected) == ~known).all()
    before, after = np.array(p)[known], corrected[known]
    assert (after >= before).all()
    assert (after <= np.minimum(before * max(1, known.sum()), 1) + 1e-15).all() or len(set(before)) > 1
    for (p1, q1), (p2, q2) in itertools.combinations(zip(before, after, strict=True), 2):
        assert q1 <= q2 if p1 <= p2 else q2 <= q1


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others():
    rng = np.random.default_rng(9)
    frame = study(base=rng.normal(size=20), a=rng.gamma(0.5, size=20))
    first = compare(frame, "base").frame
    pd.testing.assert_frame_equal(compare(frame, "base").frame, first)
    other = compare(frame, "base", seed=1).frame
    assert (other["high"] != first["high"]).all()
    assert np.abs(other["high"] - first["high"])[0] < 0.1


def test_the_frame_is_left_as_it_was():
    frame = study(base=[1, 2, 3], a=[3, 1, 2])
    before = frame.copy()
    compare(frame, "base")
    pd.testing.assert_frame_equal(frame, before)


# Refusals.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baseline": "bsae"}, r"baseline \(='bsae'\) is not there; expected one of base, a \(did you mean 'base'\?\)"),
        ({"value": "valu"}, "did you mean 'value'"),
        ({"confidence": 95}, r"confidence \(=95\): expected a number between 0 and 1"),
        ({"correction": "hol"}, r"correction \(='hol'\): expected one of holm, bh, none \(did you mean 'holm'\?\)"),
        ({"test": "wilcox"}, "did you mean 'wilcoxon'"),
        ({"resamples": 3}, r"resamples \(=3\)"),
        ({"value": "error"}, r"'error'\) holds infinite values.*compare_edfs"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(SpecError, match=message):
        compare(study(base=[0.5, math.inf], a=[0.5, 0.6]), **({"baseline": "base"} | arguments))


def test_differences_must_be_finite():
    for call in (interval, sign_flip):
        with pytest.raises(SpecError, match="expected finite numbers"):
            call([1.0, NAN])
        assert np.isnan(call([])).all()


# Simulated studies of known truth.

SHAPES = {
    "normal": (lambda rng, size: rng.normal(size=size), 0.0),
    "gamma": (lambda rng, size: rng.gamma(2, size=size), 2.0),
    "lognormal": (lambda rng, size: rng.lognormal(0, 0.5, size=size), math.exp(0.125)),
    "heavy tails": (lambda rng, size: rng.standard_t(5, size=size), 0.0),
}


@pytest.mark.parametrize("n", [8, 12, 24])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_nominal_95_percent_interval_holds_the_mean_that_often(shape, n):
    draw, truth = SHAPES[shape]
    rng = np.random.default_rng([n, *shape.encode()])
    held = []
    for _ in range(4):  # a part at a time, for memory
        low, high = intervals(draw(rng, (1000, n)), resamples=1000).T
        held.append((low <= truth) & (truth <= high))
    assert 0.93 <= np.mean(held) <= 0.97


def test_five_units_are_covered_too():
    d = np.random.default_rng(10).gamma(2, size=(4000, 5))
    low, high = intervals(d, resamples=1000).T
    assert np.mean((low <= 2) & (high >= 2)) >= 0.93


@pytest.mark.parametrize("n", [6, 8, 12, 20])
def test_studies_of_equal_arms_rarely_find_a_difference(n):
    """Five arms against one baseline, skewed and correlated through the shared draws: one finding in 20 studies."""
    rng = np.random.default_rng(11)
    studies = 1500
    draws = rng.gamma(1, size=(studies, 1, n))
    arms = draws * 2 + rng.gamma(1, size=(studies, 6, n))
    p = sign_flips(arms[:, 1:] - arms[:, :1], resamples=1000)
    assert np.mean((holm(p) <= 0.05).any(axis=1)) <= 0.06
    # Without the correction they often would, and a single test keeps its level.
    if n >= 8:
        assert np.mean((p <= 0.05).any(axis=1)) > 0.1
        assert 0.035 <= np.mean(p <= 0.05) <= 0.065
