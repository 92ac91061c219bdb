"""What a search has come to: the best so far against chance, fronts, and which holes mattered; by planted truths."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_searches import plant_search
from test_report import record

import stemlab
from stemlab.analysis import pareto, sought
from stemlab.analysis.ranking import on_front
from stemlab.analysis.running_best import expected_best, running_best
from stemlab.errors import StudyError
from stemlab.importance import FEWEST, importance
from stemlab.space import assignment, draw, find
from stemlab.spec import SearchSettings
from stemlab.spec.files import Document

NESTED = {
    "stem": {
        "choice": [
            {"width": {"int": [1, 8]}, "norm": {"choice": ["batch", "none"]}},
            {"patch": {"choice": [4, 8, 16]}},
        ]
    },
    "lr": {"log_uniform": [1e-3, 1e-1]},
    "junk": {"uniform": [0, 1]},
}
HOLES = find(Document(NESTED, "<dict>"))


def drawn(count, truth, noise=0.01, seed=0):
    rng = random.Random(seed)
    filled = [assignment(HOLES, draw(HOLES, rng)) for _ in range(count)]
    return filled, [truth(each) + rng.gauss(0, noise) for each in filled]


def test_the_hole_that_decides_comes_first_with_its_share_of_the_variance():
    # Half and half, 0.4 apart: all of the variance but a thousandth is the stem's.
    found = importance(HOLES, *drawn(120, lambda a: 0.4 * ("stem.choice[1].patch" in a))).frame
    assert found["hole"][0] == "stem"
    assert found["importance"][0] == pytest.approx(1, abs=0.1)
    assert (found["importance"][1:].abs() < 0.03).all()


def test_a_nested_hole_counts_where_it_is_open_and_for_its_choice():
    filled, values = drawn(200, lambda a: 0.4 * (a.get("stem.choice[0].norm") == "batch"))
    found = importance(HOLES, filled, values).frame.set_index("hole")
    assert list(found.index[:2]) == ["stem", "stem.choice[0].norm"]
    assert found.loc["stem.choice[0].norm", "low"] > 0.1
    assert found.loc["stem.choice[0].norm", "share_open"] == pytest.approx(0.5, abs=0.1)
    assert found.loc[["lr", "junk", "stem.choice[1].patch"], "importance"].abs().max() < 0.05


def test_numbers_count_by_their_size():
    found = importance(HOLES, *drawn(120, lambda a: -abs(np.log10(a["lr"]) + 2))).frame
    assert found["hole"][0] == "lr"
    assert found["low"][0] > 0.5


def test_of_noise_nothing_is_said():
    found = importance(HOLES, *drawn(60, lambda a: 0.0, noise=1))
    assert found.frame.empty
    assert "Nothing can be said" in found.method


@pytest.mark.parametrize("values", [[0.5] * 20, [0.1] * (FEWEST - 1), []])
def test_of_too_few_results_or_equal_ones_nothing_is_said(values):
    filled, _ = drawn(len(values), lambda a: 0.0)
    assert importance(HOLES, filled, values).frame.empty


def test_importance_is_the_same_again():
    given = drawn(30, lambda a: a["junk"])
    assert importance(HOLES, *given).frame.equals(importance(HOLES, *given).frame)


# The best so far


@settings(max_examples=40)
@given(
    values=st.lists(st.sampled_from([0.1, 0.2, 0.2, 0.5, float("nan")]), min_size=1, max_size=6),
    sign=st.sampled_from([1, -1]),
)
def test_the_expected_best_is_the_mean_over_all_orders(values, sign):
    found = expected_best(values, sign)
    if np.isnan(values).all():
        assert len(found.n) == 0
        return
    orders = np.array([running_best(order, sign) for order in itertools.permutations(values)])
    assert list(found.n) == list(range(1, len(values) + 1))
    for n in found.n:
        seen = orders[:, n - 1][np.isfinite(orders[:, n - 1])]
        assert found.mean[n - 1] == pytest.approx(seen.mean())
        low, high = np.quantile(seen, [0.05, 0.95], method="inverted_cdf")
        assert found.low[n - 1] <= low + 1e-12
        assert found.high[n - 1] >= high - 1e-12


def test_the_expected_best_of_many_has_few_points_and_ends_at_the_best():
    found = expected_best(np.random.default_rng(0).random(10_000), 1)
    assert len(found.n) <= 300
    assert (found.n[0], found.n[-1]) == (1, 10_000)
    assert found.mean[0] == pytest.approx(0.5, abs=0.01)
    assert found.mean[-1] == found.low[-1] == found.high[-1]
    assert (np.diff(found.mean) > 0).all()


# Fronts


@settings(max_examples=30)
@given(count=st.integers(0, 1500), seed=st.integers(0, 99))
def test_the_front_of_many_is_the_front_of_all(count, seed):
    values = np.random.default_rng(seed).integers(0, 12, (count, 3)).astype(float)
    values[values == 11] = np.nan
    assert (on_front(values, (1, -1, 1)) == pareto.front(values, (1, -1, 1))).all()


def test_values_are_judged_and_costs_are_taken():
    both = SearchSettings.model_validate(
        {"seeds": [0, 1], "objective": [{"maximize": "top1"}, {"minimize": "match_error"}], "judge": "worst"}
    )
    records = [record(0, 0.9), record(1, 0.8), record(1, 0.6, 1), record(0, 0.7, 1), record(2, 0.9), record(3, 0.9)]
    records += [record(3, 0.1, 1, status="pruned"), record(4, 0.9), record(4, seed=1, status="infeasible")]
    frame = sought.values(records, both)
    assert list(frame["proposal"]) == [1, 0, 3, 4]  # as they ended; of 2 a trial is missing
    assert list(frame["top1"][:2]) == [0.6, 0.7]
    assert frame["top1"][2:].isna().all()
    assert list(frame["match_error"]) == [0.0023] * 4
    assert frame["hours"].is_monotonic_increasing
    assert [row["proposal"] for row in sought.leading(records, both)] == [0]


def test_a_trial_that_went_on_is_paid_once():
    one = SearchSettings.model_validate({})
    stopped = record(0, 0.5, status="pruned", until=1, metrics={"seconds": 3600.0})
    frame = sought.values([stopped, record(0, 0.9, metrics={"top1": 0.9, "seconds": 7200.0})], one)
    assert frame["hours"].tolist() == [2.0]


def test_a_study_gives_its_front_and_what_mattered(tmp_path):
    objective = [{"maximize": "top1"}, {"minimize": "flops"}]
    study = stemlab.Study(plant_search(tmp_path / "two", 40, objective=objective).path)
    front = study.front
    assert list(front.columns) == ["proposal", "label", "top1", "flops"]
    assert front["top1"].is_monotonic_decreasing
    assert front["flops"].is_monotonic_decreasing
    found = study.importance().frame
    assert list(found["hole"][:2]) == ["model.stem", "train.lr"]
    assert found["low"][1] > 0 > found["low"][4]
    best = stemlab.Study(plant_search(tmp_path / "one", 12).path)
    assert len(best.front) == 1
    assert best.find_best() is not None


def test_an_ablation_has_no_front(tmp_path):
    from planted import TINY, plant

    plant(tmp_path, TINY, keep=lambda arm, draw, seed: False)
    with pytest.raises(StudyError, match="this is an ablation"):
        _ = stemlab.Study(tmp_path).front
