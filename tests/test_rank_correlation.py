"""Rank correlations of scores with results, against scipy's, and those of a search's records."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stemlab.analysis.screening import correlations, rank_correlation
from stemlab.errors import SpecError
from stemlab.records import TrialRecord

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=30)


@given(PAIRS)
def test_correlations_are_scipys(pairs):
    x, y = map(list, zip(*pairs, strict=True))
    found = correlations(x, y, resamples=100)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(found["spearman"])
        assert math.isnan(found["kendall"])
        return
    assert found["spearman"] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)
    assert found["kendall"] == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-9)


@given(PAIRS.filter(lambda pairs: len(pairs) >= 8))
def test_what_keeps_the_order_keeps_the_correlations(pairs):
    x, y = (np.array(values, dtype=float) for values in zip(*pairs, strict=True))
    found = correlations(x, y, resamples=100)
    same = correlations(np.exp(x), 3 * y - 7, resamples=100)
    assert same == pytest.approx(found, nan_ok=True)
    turned = correlations(-x, y, resamples=100)
    for name in ("spearman", "kendall"):
        assert turned[name] == pytest.approx(-found[name], nan_ok=True)
        assert turned[f"{name}_low"] == pytest.approx(-found[f"{name}_high"], nan_ok=True)


def test_an_interval_is_that_of_scipy_on_the_same_resamples():
    from stemlab.analysis.resampling import resample_counts

    rng = np.random.default_rng(1)
    x = rng.integers(0, 6, 20)
    y = x + rng.integers(0, 8, 20)
    found = correlations(x, y, resamples=200, seed=3)
    for name, function in (("spearman", stats.spearmanr), ("kendall", stats.kendalltau)):
        drawn = [np.repeat(np.arange(20), row.astype(int)) for row in resample_counts(20, 200, 3)]
        limits = np.quantile([function(x[i], y[i]).statistic for i in drawn], [0.025, 0.975])
        assert [found[f"{name}_low"], found[f"{name}_high"]] == pytest.approx(list(limits))


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_intervals_hold_what_they_promise(rho):
    rng = np.random.default_rng(0)
    pearson = 2 * math.sin(math.pi * rho / 6)  # of the bivariate normal whose Spearman correlation is rho
    samples = rng.multivariate_normal([0, 0], [[1, pearson], [pearson, 1]], size=(150, 20))
    inside = 0
    for sample in samples:
        found = correlations(*sample.T, resamples=500)
        inside += found["spearman_low"] <= rho <= found["spearman_high"]
    assert inside / len(samples) > 0.88  # four standard errors below 95 %


def test_few_points_have_no_interval():
    found = correlations([1, 2, 3, 4], [2, 1, 3, 4])
    assert found["spearman"] == pytest.approx(0.8)
    assert math.isnan(found["spearman_low"])
    assert math.isnan(correlations([], [])["spearman"])


@pytest.mark.parametrize("scores", [[1.0], [1.0, math.nan], [1.0, math.inf], [[1.0], [2.0]]])
def test_what_is_no_pair_of_lists_is_refused(scores):
    with pytest.raises(SpecError, match="two lists of as many finite numbers"):
        correlations(scores, [1.0, 2.0])


def record(proposal, screen, top1, seed=0, status="ok"):
    metrics = {} if top1 is None else {"top1": top1, "loss": 1 - top1}
    return TrialRecord(
        f"{proposal}-{seed}", status, {}, {}, {}, seed, metrics=metrics, proposal=proposal, screen=screen
    )


def test_a_search_is_judged_by_its_finished_proposals():
    records = [record(n, screen=float(n), top1=0.5 + n / 100) for n in range(6)]
    records += [record(6, 9.0, None, status="diverged"), record(7, None, 0.1), record(8, 3.0, None, status="failed")]
    row = rank_correlation(records).frame.iloc[0]
    assert (row["n"], row["of"], row["spearman"], row["kendall"]) == (6, 9, pytest.approx(1), pytest.approx(1))
    assert "6 of 9 proposals" in rank_correlation(records).title
    assert rank_correlation(records, "loss", -1).frame.iloc[0]["spearman"] == pytest.approx(1)
    assert rank_correlation(records, "loss", 1).frame.iloc[0]["spearman"] == pytest.approx(-1)


def test_seeds_are_averaged_and_a_trial_run_again_counts_once():
    records = [record(n, float(n), 0.5 + (-1) ** seed * n / 50 + n / 100, seed) for n in range(6) for seed in (0, 1)]
    first = record(5, 5.0, 0.2, 0)
    assert rank_correlation([*records[:-2], first, *records[-2:]]).frame.iloc[0]["spearman"] == pytest.approx(1)


def test_a_search_without_scores_has_no_correlation():
    row = rank_correlation([record(n, None, 0.5) for n in range(3)]).frame.iloc[0]
    assert (row["n"], row["of"]) == (0, 3)
    assert math.isnan(row["spearman"])
    assert rank_correlation([]).frame.iloc[0]["of"] == 0


def test_the_test_part_never_ranks():
    with pytest.raises(SpecError, match="test_top1"):
        rank_correlation([], "test_top1")
