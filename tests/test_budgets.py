"""Smaller budgets: ranks that agree, that turn round, that are noise; schedules of several lengths; runs that stop."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from ablation_frames import additive, crossed, results
from scipy.stats import kendalltau

from stemlab.analysis.budgets import _tau, rank_between, rank_correlation, schedule_gap
from stemlab.errors import SpecError

FACTORS = {"stem": ["p", "c", "d"], "epochs": ["2", "10", "100"]}


def curves(value, arms=("a", "b", "c"), epochs=4, draws=5):
    """Learning curves; `value(arm, draw, share)`, `epochs` one number or one for each arm."""
    lengths = epochs if isinstance(epochs, dict) else dict.fromkeys(arms, epochs)
    return pd.DataFrame(
        [
            {"arm": arm, "draw": draw, "seed": 0, "epoch": epoch, "top1": value(arm, draw, epoch / lengths[arm])}
            for arm in arms
            for draw in range(draws)
            for epoch in range(1, lengths[arm] + 1)
        ]
    )


@pytest.mark.filterwarnings("error")
def test_tau_is_that_of_scipy():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 5, (2, 40, 6)).astype(float)
    expected = [kendalltau(a, b).statistic for a, b in zip(first, second, strict=True)]
    assert _tau(first, second) == pytest.approx(expected)
    assert _tau(np.ones((1, 3)), first[:1, :3]) == 0


def test_ranks_that_never_change_correlate_fully():
    found = rank_correlation(curves(lambda arm, draw, share: ord(arm) * share)).frame
    assert list(found["epoch"]) == [1, 2, 3, 4]
    assert list(found["share"]) == [0.25, 0.5, 0.75, 1.0]
    assert (found[["tau", "low", "high"]] == 1.0).all().all()
    assert set(found["units"]) == {5}


def test_ranks_that_turn_round_halfway_correlate_negatively_until_then():
    found = rank_correlation(curves(lambda arm, draw, share: ord(arm) * (share - 0.6))).frame
    assert list(found["tau"]) == [-1.0, -1.0, 1.0, 1.0]


def test_shorter_schedules_compare_by_share_of_their_own():
    lengths = {"a": 2, "b": 4, "c": 8}
    found = rank_correlation(curves(lambda arm, draw, share: ord(arm) + share, epochs=lengths)).frame
    assert list(found["epoch"]) == [4, 5, 6, 7, 8]
    assert (found["tau"] == 1).all()
    # At 7 of 8 epochs the shortest has finished 1 of 2: not the value of its end, which would put it first.
    late = {"a": [0.0, 9.0], "b": [1.0] * 4, "c": [2.0] * 8}
    frame = curves(lambda *_: 0.0, epochs=lengths)
    frame["top1"] = [late[arm][epoch - 1] for arm, epoch in zip(frame["arm"], frame["epoch"], strict=True)]
    assert list(rank_correlation(frame).frame["tau"]) == pytest.approx([-1 / 3] * 4 + [1])


def test_a_run_that_stops_counts_as_guessing_from_there_on():
    frame = curves(lambda arm, draw, share: {"a": 0.9, "b": 0.5, "c": 0.4}[arm])
    stopped = frame[(frame["arm"] != "a") | (frame["epoch"] <= 2) | (frame["draw"] == 0)]
    assert list(rank_correlation(stopped, limit=0.1).frame["tau"]) == pytest.approx([-1 / 3, -1 / 3, 1, 1])
    with pytest.raises(SpecError, match="a run of arm 'a' stops early: `limit`"):
        rank_correlation(stopped)
    everywhere = frame[(frame["arm"] != "a") | (frame["epoch"] <= 2)]
    same = rank_correlation(everywhere.assign(epochs=4), limit=0.1).frame
    assert list(same["tau"]) == pytest.approx([-1 / 3, -1 / 3, 1, 1])


def test_a_run_that_never_finished_an_epoch_is_guessing_throughout():
    frame = curves(lambda arm, draw, share: ord(arm))
    first = frame[(frame["arm"] == "c") & (frame["epoch"] == 1)].assign(epoch=0, top1=np.nan)
    frame = pd.concat([frame[frame["arm"] != "c"], first.assign(epochs=4)])
    found = rank_correlation(frame, limit=0.1).frame
    assert (found["tau"] == 1).all()
    assert set(found["units"]) == {5}


def test_the_interval_of_noisy_ranks_is_wide_and_holds_tau():
    rng = np.random.default_rng(0)
    frame = curves(lambda arm, draw, share: rng.normal(), arms="abcdef")
    found = rank_correlation(frame).frame[:-1]
    assert ((found["low"] <= found["tau"]) & (found["tau"] <= found["high"])).all()
    assert (found["high"] - found["low"] > 0.3).all()


def test_curves_that_cannot_be_ranked_are_refused():
    frame = curves(lambda arm, draw, share: ord(arm))
    with pytest.raises(SpecError, match="ranks need two arms"):
        rank_correlation(frame[frame["arm"] == "a"])
    with pytest.raises(SpecError, match="arm 'a' has an epoch of a run twice"):
        rank_correlation(pd.concat([frame, frame]))
    with pytest.raises(SpecError, match=r"column \(='top2'\) is not in the frame; expected .*did you mean 'top1'"):
        rank_correlation(frame, value="top2")


PARTS = {("stem", "c"): 0.2, ("stem", "d"): 0.4, ("epochs", "10"): 0.3, ("epochs", "100"): 0.5}


def test_ranks_between_schedules_are_of_the_settings_they_share():
    frame = results(crossed(**FACTORS), additive(PARTS, noise=0.01), draws=4)
    found = rank_between(frame, list(FACTORS), "epochs").frame
    assert list(zip(found["first"], found["second"], strict=True)) == [("2", "10"), ("2", "100"), ("10", "100")]
    assert (found["tau"] == 1).all()
    assert (found["arms"] == 3).all()
    frame.loc[frame["epochs"] == "2", "value"] *= -1
    assert list(rank_between(frame, list(FACTORS), "epochs").frame["tau"]) == [-1, -1, 1]


def test_two_levels_with_one_setting_in_common_have_no_rank():
    frame = results(crossed(stem=["p"], epochs=["2", "10"]), additive({}), draws=4)
    assert rank_between(frame, ["stem", "epochs"], "epochs").frame.empty


def test_the_gap_to_the_longest_schedule_is_the_planted_one():
    frame = results(crossed(**FACTORS), additive(PARTS), draws=4)
    found = schedule_gap(frame, list(FACTORS)).frame
    assert list(found["setting"]) == ["stem=p", "stem=c", "stem=d"] * 2
    assert list(found["gap"]) == pytest.approx([0.5] * 3 + [0.2] * 3)
    assert list(found["low"]) == pytest.approx(list(found["gap"]))
    assert set(found["longest"]) == {"100"}
    assert set(found["n"]) == {4}


def test_a_gap_is_of_the_units_that_both_have():
    frame = results(crossed(**FACTORS), additive(PARTS), draws=4)
    frame.loc[(frame["stem"] == "c") & (frame["draw"] == 1) & (frame["epochs"] == "100"), "value"] = np.nan
    found = schedule_gap(frame, list(FACTORS)).frame
    assert list(found["n"]) == [4, 3, 4] * 2
    assert list(found["gap"]) == pytest.approx([0.5] * 3 + [0.2] * 3)


def test_a_budget_is_a_factor_with_numbers_for_levels():
    frame = results(crossed(**FACTORS), additive({}), draws=2)
    with pytest.raises(
        SpecError, match=r"unknown factor 'epoch'; expected one of stem, epochs \(did you mean 'epochs'"
    ):
        schedule_gap(frame, list(FACTORS), "epoch")
    with pytest.raises(SpecError, match="a budget is a number, got level"):
        schedule_gap(frame, list(FACTORS), "stem")
