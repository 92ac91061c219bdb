"""Diverged runs: counts, exact intervals, McNemar's test."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from studies import study

from stemlab.analysis.divergence import divergence
from stemlab.analysis.paired import sign_flip
from stemlab.analysis.resampling import holm
from stemlab.errors import SpecError

INF, NAN = np.inf, np.nan


def rows(result):
    return result.frame.set_index(result.frame.columns[0])


def test_counts_and_rates_by_hand():
    table = rows(divergence(study(a=[0.5, INF, NAN, 0.6], b=[0.5] * 4, c=[INF] * 4, d=[NAN] * 4)))
    assert list(table.columns) == ["runs", "diverged", "failed", "rate", "low", "high"]
    assert table[["runs", "diverged", "failed"]].to_numpy().tolist() == [[3, 1, 1], [4, 0, 0], [4, 4, 0], [0, 0, 4]]
    assert table["rate"].tolist()[:3] == [1 / 3, 0, 1]
    # Clopper & Pearson: (alpha / 2)^(1 / n) where all or none diverged.
    assert table.loc["b", ["low", "high"]].tolist() == pytest.approx([0, 1 - 0.025 ** (1 / 4)])
    assert table.loc["c", ["low", "high"]].tolist() == pytest.approx([0.025 ** (1 / 4), 1])
    assert table.loc["d", ["rate", "low", "high"]].isna().all()


def test_the_exact_interval_covers_and_widens_with_confidence():
    frame = study(a=[INF] * 3 + [0.5] * 9)
    low, high = rows(divergence(frame, confidence=0.9)).loc["a", ["low", "high"]]
    assert stats.binom.sf(2, 12, low) == pytest.approx(0.05)
    assert stats.binom.cdf(3, 12, high) == pytest.approx(0.05)
    assert rows(divergence(frame, confidence=0.99)).loc["a", "low"] < low


def test_mcnemar_by_hand():
    base = [INF, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, NAN]
    a = [0.5, INF, INF, INF, INF, INF, 0.5, INF]
    table = rows(divergence(study(base=base, a=a, same=base), baseline="base"))
    assert table.loc["a", "pairs"] == 7
    assert table.loc["a", "difference"] == pytest.approx(4 / 7)
    assert table.loc["a", "p"] == pytest.approx(2 * (1 + 6) / 2**6)  # one against five
    assert table.loc["same", "p"] == 1
    assert table.loc["base", ["pairs", "p", "p_corrected"]].isna().all()
    np.testing.assert_allclose(table["p_corrected"], holm(table["p"]))
    assert table.loc["a", "p_corrected"] == pytest.approx(4 * 7 / 2**6)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=14))
def test_mcnemar_is_the_sign_flip_of_what_differs(pairs):
    base, a = (np.where(list(column), INF, 0.5) for column in zip(*pairs, strict=True))
    frame = study(base=base, a=a)
    p = rows(divergence(frame, baseline="base")).loc["a", "p"]
    assert p == pytest.approx(sign_flip(np.isinf(a) * 1.0 - np.isinf(base)))
    mirrored = rows(divergence(frame, baseline="a")).loc["base", "p"]
    assert mirrored == p


def test_mcnemar_is_exact_for_many_pairs():
    base, a = [INF] * 4 + [0.5] * 46, [0.5] * 4 + [INF] * 20 + [0.5] * 26
    assert rows(divergence(study(base=base, a=a), "base")).loc["a", "p"] == stats.binomtest(20, 24).pvalue


def test_seeds_of_one_draw_are_no_independent_evidence():
    """One draw on which all eight seeds of the arm diverge is one piece of evidence, not eight."""
    base = np.full((4, 8), 0.5)
    a = base.copy()
    a[0] = INF
    table = rows(divergence(study(base=base, a=a), "base"))
    assert table.loc["a", ["runs", "diverged", "pairs"]].tolist() == [32, 8, 4]
    assert table.loc["a", "p"] == 1
    a[1:, 0] = INF
    mixed = base.copy()
    mixed[:3] = INF
    worse = base.copy()
    worse[3, 0] = INF
    # Shares 1, 1, 1 against an eighth: its sign does not matter, so 4 of 16 swaps are as far apart.
    assert rows(divergence(study(base=worse, a=mixed), "base")).loc["a", "p"] == 4 / 2**4
    assert rows(divergence(study(base=base, a=a), "base")).loc["a", "p"] == 2 / 2**4


def test_failed_runs_are_in_no_pair():
    frame = study(base=[0.5] * 6 + [NAN], a=[INF] * 5 + [NAN, INF])
    table = rows(divergence(frame, "base"))
    assert table.loc["a", ["runs", "diverged", "failed", "pairs"]].tolist() == [6, 6, 1, 5]
    assert table.loc["a", "p"] == 2 / 2**5
    assert "failed runs left out" in divergence(frame).method
    gone = rows(divergence(study(base=[0.5, 0.5], a=[NAN, NAN]), "base")).loc["a"]
    assert gone["pairs"] == 0
    assert gone[["p", "p_corrected", "difference"]].isna().all()


def test_levels_of_a_factor():
    frame = study(a=[INF, 0.5, 0.5], b=[0.5] * 3, c=[0.5] * 3)
    frame["norm"] = frame["arm"].map({"a": "batch", "b": "batch", "c": "layer"})
    table = rows(divergence(frame, "layer", by="norm"))
    assert table.loc["batch", ["runs", "diverged", "pairs"]].tolist() == [6, 1, 3]
    assert table.loc["batch", "difference"] == pytest.approx(1 / 6)


def test_what_cannot_be_is_refused():
    frame = study(base=[0.5], a=[0.5])
    with pytest.raises(SpecError, match="did you mean 'base'"):
        divergence(frame, "bsae")
    with pytest.raises(SpecError, match=r"column \(='status'\)"):
        divergence(frame.drop(columns="status"))
    with pytest.raises(SpecError, match="confidence"):
        divergence(frame, confidence=2)
