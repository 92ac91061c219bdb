"""Claims: read from a file, checked before the run, judged after it by results in which the answer is planted."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from ablation_frames import additive, arm_table, crossed, results

from stemlab.analysis.claims import NOT_DECIDED, NOT_REPRODUCED, OPPOSITE, REPRODUCED, check, judge
from stemlab.errors import InfeasibleError, SpecError
from stemlab.spec.claims import ClaimSpec
from stemlab.spec.files import parse, validate

FACTORS = {"stem": ["p", "c"], "opt": ["adamw", "sgd"]}
SWAP = {
    "name": "optimizer swap",
    "source": "arXiv 2106.14881",
    "says": "c loses less than p when AdamW is replaced by SGD.",
    "measure": "test_top1",
    "compare": {"stem": ["p", "c"], "opt": ["adamw", "sgd"]},
    "expect": {"min": 0.02},
}


def claim(**changes):
    return ClaimSpec.model_validate({**SWAP, "compare": {"stem": ["p", "c"]}, **changes})


def frame(parts, draws=10, seeds=1, noise=0.005, seed=0, factors=FACTORS):
    """A study in which test_top1 (and top1, the validation's) is what the parts add up to."""
    found = results(crossed(**factors), additive(parts, noise, seed), draws, seeds)
    return found.assign(test_top1=found["value"], top1=found["value"], error=1 - found["value"])


def judged(claims, study, **settings):
    claims = [claims] if isinstance(claims, ClaimSpec) else claims
    return judge(claims, study, FACTORS, **{"resamples": 1000, **settings}).frame.iloc[0]


# The file.


def test_a_claim_is_read_from_yaml_and_keeps_its_meaning():
    text = """
name: longer
says: Longer schedules need no norm.
measure: test_top1
compare: {epochs: [10, 1.0e+2]}
where: {bias: true, norm: null}
over: {within: 0.05}
expect: {max: 0.01}
"""
    read = validate(ClaimSpec, parse(text, "x.yaml"))
    assert read.compare == {"epochs": ("10", "100")}
    assert read.where == {"bias": "true", "norm": "null"}
    assert ClaimSpec.model_validate(read.canonical()) == read
    assert str(read.expect) == "at most 0.01"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "compare: {stem: [p]}",
            r"x.yaml:5: compare.stem: expected the two levels compared, \[from, to\], got \['p'\]",
        ),
        ("compare: {stem: [p, p]}", r"x.yaml:5: compare.stem\[1\]: a level is compared with itself \('p'\)"),
        ("compare: {stem: [p, {a: 1}]}", r"a level is named by text, a number, true, false or null, got \{'a': 1\}"),
        ("compare: {a: [0, 1], b: [0, 1], c: [0, 1]}", r"expected \{factor: \[from, to\]\} of one factor or of two"),
        ("compare: {stem: [p, c]}\nwhere: {stem: p}", "x.yaml:6: where.stem: stem is compared, so it cannot be fixed"),
        ("compare: {stem: [p, c]}\nwhere: [p]", r"where: expected \{factor: level\}, got \['p'\]"),
        ("compare: {stem: [p, c]}\nover: bes", r"over: unknown summary 'bes'; expected one of .*did you mean 'best'"),
        ("compare: {stem: [p, c]}\nover: within", r"over: within needs its distance: \{within: 0.05\}"),
        ("compare: {stem: [p, c]}\nover: {within: 0}", r"over.within: expected a distance above 0, got 0"),
        ("compare: {stem: [p, c]}\novr: best", "unknown field 'ovr'; .*did you mean 'over'"),
    ],
)
def test_a_claim_that_cannot_be_meant_is_refused_where_it_stands(change, message):
    text = f"name: a\nsays: b\nmeasure: test_top1\nexpect: {{min: 0.1}}\n{change}\n"
    with pytest.raises(SpecError, match=message):
        validate(ClaimSpec, parse(text, "x.yaml"))


@pytest.mark.parametrize("expect", [{}, {"min": 1.0, "max": 0.0}])
def test_an_expectation_has_limits(expect):
    with pytest.raises(ValueError, match=r"expected min, max or both|must not exceed"):
        claim(expect=expect)


# Before the run.


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        ({"compare": {"stm": ["p", "c"]}}, (1, "compare", "stm"), "unknown factor 'stm'; .*did you mean 'stem'"),
        ({"compare": {"stem": ["p", "d"]}}, (1, "compare", "stem", 1), "'d' is no level of stem; expected one of p, c"),
        ({"where": {"opt": "sgdm"}}, (1, "where", "opt"), "'sgdm' is no level of opt; .*did you mean 'sgd'"),
        ({"where": {"optimizer": "sgd"}}, (1, "where", "optimizer"), "unknown factor 'optimizer'"),
        ({"measure": "test_top2"}, (1, "measure"), "unknown measure 'test_top2'; .*did you mean 'test_top1'"),
        ({"name": SWAP["name"]}, (1, "name"), "two claims are called 'optimizer swap'"),
    ],
)
def test_a_claim_that_the_design_cannot_answer_is_told_with_its_path(change, path, message):
    claims = [claim(), claim(**{"name": "other", **change})]
    with pytest.raises(InfeasibleError, match=message) as caught:
        check(claims, FACTORS, ["test_top1", "flops"])
    assert caught.value.path == path


def test_a_claim_about_arms_that_the_design_leaves_out_is_told():
    arms = arm_table([s for s in crossed(**FACTORS) if s != {"stem": "c", "opt": "sgd"}])
    check([claim(where={"opt": "adamw"})], FACTORS, arms=arms)
    with pytest.raises(InfeasibleError, match="no arm has stem=c, opt=sgd") as caught:
        check([claim(where={"opt": "sgd"})], FACTORS, arms=arms)
    assert caught.value.path == (0, "compare")


def test_any_run_can_diverge_so_that_is_a_measure_of_every_study():
    check([claim(measure="diverged")], FACTORS, ["test_top1"])


# After it.


@pytest.mark.parametrize(
    ("planted", "expect", "verdict"),
    [
        (0.1, {"min": 0.02}, REPRODUCED),
        (-0.1, {"max": -0.02}, REPRODUCED),
        (0.0, {"min": -0.05, "max": 0.05}, REPRODUCED),
        (0.01, {"min": 0.05}, NOT_REPRODUCED),
        (0.1, {"min": -0.05, "max": 0.05}, NOT_REPRODUCED),
        (-0.1, {"min": 0.02}, OPPOSITE),
        (-0.1, {"min": 0.0}, OPPOSITE),
        (0.1, {"max": 0.0}, OPPOSITE),
        (0.02, {"min": 0.02}, NOT_DECIDED),
    ],
)
def test_the_verdict_is_that_of_the_interval(planted, expect, verdict):
    row = judged(claim(expect=expect), frame({("stem", "c"): planted}))
    assert row["verdict"] == verdict
    assert row["low"] < row["estimate"] < row["high"]
    assert row["estimate"] == pytest.approx(planted, abs=0.01)
    assert row["n"] == 10


def test_two_factors_are_a_difference_of_differences():
    study = frame({("opt", "sgd"): -0.1})
    study.loc[(study["stem"] == "c") & (study["opt"] == "sgd"), "test_top1"] += 0.08
    row = judged(ClaimSpec.model_validate(SWAP), study)
    assert row["verdict"] == REPRODUCED
    assert row["estimate"] == pytest.approx(0.08, abs=0.01)
    assert (row["source"], row["expected"]) == ("arXiv 2106.14881", "at least 0.02")


def test_where_fixes_a_factor_and_those_not_named_are_averaged_over():
    study = frame({("stem", "c"): 0.1})
    study.loc[(study["stem"] == "c") & (study["opt"] == "sgd"), "test_top1"] += 0.2
    assert judged(claim(), study)["estimate"] == pytest.approx(0.2, abs=0.01)
    assert judged(claim(where={"opt": "sgd"}), study)["estimate"] == pytest.approx(0.3, abs=0.01)


@pytest.mark.filterwarnings("error")
def test_costs_are_points_and_may_be_relative():
    study = frame({}, draws=1, seeds=1).assign(flops=lambda f: np.where(f["stem"] == "c", 95.0, 100.0))
    row = judged(claim(measure="flops", relative=True, expect={"min": -0.05, "max": 0.05}), study)
    assert (row["estimate"], row["low"], row["high"], row["verdict"]) == (-0.05, -0.05, -0.05, REPRODUCED)
    assert judged(claim(measure="flops", expect={"max": -6.0}), study)["verdict"] == NOT_REPRODUCED


def test_a_relative_difference_is_a_share_of_the_first_arm():
    study = frame({("stem", "c"): 0.05})
    study["seconds"] = np.where(study["stem"] == "c", 1.2, 1.0) * np.exp(study["value"] / 10)
    row = judged(claim(measure="seconds", relative=True, expect={"min": 0.15, "max": 0.25}), study)
    assert row["estimate"] == pytest.approx(0.206, abs=0.002)
    assert row["verdict"] == REPRODUCED
    # Twice as long seconds are the same share.
    same = judged(claim(measure="seconds", relative=True), study.assign(seconds=2 * study["seconds"]))
    assert (same["low"], same["high"]) == pytest.approx((row["low"], row["high"]))


def test_how_often_runs_diverge_is_a_measure():
    study = frame({}, draws=20)
    study.loc[(study["stem"] == "p") & (study["draw"] < 15), "status"] = "diverged"
    study.loc[(study["stem"] == "c") & (study["draw"] == 19), "status"] = "failed"
    row = judged(claim(measure="diverged", expect={"max": -0.2}), study)
    assert row["verdict"] == REPRODUCED
    assert row["estimate"] == pytest.approx(-15 / 19)
    assert row["n"] == 19


def test_a_diverged_run_counts_as_guessing_where_that_is_known_and_else_is_missing():
    study = frame({}, noise=0.0)
    lost = (study["stem"] == "p") & (study["draw"] == 0)
    study.loc[lost, ["status", "test_top1"]] = ["diverged", np.nan]
    study.loc[lost, "error"] = np.inf
    kept = study[(study["stem"] == "c") & (study["draw"] == 0)]["test_top1"].iloc[0]
    assert judged(claim(), study, guessing={"test_top1": 0.1})["estimate"] == pytest.approx((kept - 0.1) / 10)
    assert judged(claim(measure="error"), study, guessing={"error": 0.9})["estimate"] == pytest.approx(
        (0.1 - kept) / 10
    )
    missing = judged(claim(), study)
    assert (missing["n"], missing["estimate"]) == (9, 0.0)


def test_the_best_draw_is_chosen_by_validation_and_judged_by_the_measure():
    study = frame({}, draws=8, noise=0.0)
    study["top1"] = np.where(study["draw"] == 3, 0.9, 0.5)
    study["test_top1"] = np.where(study["draw"] == 3, 0.6, 0.7) + 0.1 * (study["stem"] == "c") * (study["draw"] == 3)
    row = judged(claim(over="best"), study)
    assert row["estimate"] == pytest.approx(0.1)
    assert row["low"] <= row["estimate"] <= row["high"]
    by_loss = judged(claim(over="best"), study.assign(loss=1 - study["top1"]), validation="loss", sign=-1)
    assert by_loss["estimate"] == pytest.approx(0.1)
    unknown = study.assign(top1=study["top1"].where(study["draw"] != 3))
    assert judged(claim(over="best"), unknown)["estimate"] == pytest.approx(0.0)


def test_spread_is_the_standard_deviation_over_draws():
    rng = np.random.default_rng(0)
    study = frame({}, draws=40)
    study["test_top1"] = np.where(study["stem"] == "c", 0.02, 0.1) * rng.normal(size=len(study))
    row = judged(claim(over="spread", expect={"max": -0.02}), study)
    spreads = study.groupby("arm")["test_top1"].std()
    assert row["estimate"] == pytest.approx(spreads.filter(like="stem=c").mean() - spreads.filter(like="stem=p").mean())
    assert row["verdict"] == REPRODUCED
    narrower = judged(claim(over="spread", relative=True, expect={"max": -0.5}), study)
    assert narrower["estimate"] == pytest.approx(-0.8, abs=0.1)


@pytest.mark.parametrize(("measure", "best"), [("test_top1", 0.9), ("error", 0.1)])
def test_within_is_the_share_of_draws_near_the_arms_own_best(measure, best):
    study = frame({}, draws=10)
    away = np.where(study["stem"] == "c", 0.05 * (study["draw"] // 5), 0.05 * study["draw"])
    study[measure] = best - away if measure == "test_top1" else best + away
    row = judged(claim(measure=measure, over={"within": 0.05}, expect={"min": 0.2}), study)
    assert row["estimate"] == pytest.approx(1.0 - 0.2)
    assert row["verdict"] == REPRODUCED


def test_what_too_few_units_cannot_say_is_not_decided():
    one = judged(claim(), frame({("stem", "c"): 0.5}, draws=1))
    assert (one["verdict"], one["n"]) == (NOT_DECIDED, 1)
    assert one["estimate"] == pytest.approx(0.5, abs=0.02)
    few = judged(claim(over="spread"), frame({}, draws=7))
    assert few["verdict"] == NOT_DECIDED
    assert math.isnan(few["low"])
    assert math.isfinite(few["estimate"])


def test_arms_that_were_not_run_leave_a_claim_undecided():
    study = frame({("stem", "c"): 0.5})
    study.loc[study["stem"] == "c", "test_top1"] = np.nan
    row = judged(claim(), study)
    assert (row["verdict"], row["n"]) == (NOT_DECIDED, 0)


def test_a_study_may_make_no_claim_and_a_measure_must_be_there():
    assert judge([], frame({}), FACTORS).frame.empty
    with pytest.raises(SpecError, match="unknown measure 'token_similarity'"):
        judged(claim(measure="token_similarity"), frame({}))


@pytest.mark.parametrize(("changes", "true"), [({}, 0.1), ({"relative": True}, 0.125), ({"over": "spread"}, 0.05)])
def test_intervals_hold_what_is_so(changes, true):
    """Nominal 95 % over 16 draws."""
    rng = np.random.default_rng(0)
    template = results(crossed(stem=["p", "c"]), lambda *_: 0.0, draws=16).assign(top1=0.0)
    inside = 0
    for study in range(120):
        common = rng.normal(size=16)
        p, c = 0.8 + 0.1 * common, 0.9 + (0.15 if "over" in changes else 0.1) * common
        noise = 0.05 * rng.normal(size=(2, 16)) * ("over" not in changes)
        template["test_top1"] = np.stack([p + noise[0], c + noise[1]], axis=1).ravel()
        row = judge([claim(**changes)], template, {"stem": ["p", "c"]}, resamples=400, seed=study).frame.iloc[0]
        inside += row["low"] <= true <= row["high"]
    assert inside / 120 >= 0.92


def test_the_frame_has_a_row_a_claim_in_the_order_of_the_file():
    claims = [claim(name="b"), claim(name="a")]
    result = judge(claims, frame({}), FACTORS)
    assert list(result.frame["claim"]) == ["b", "a"]
    assert isinstance(result.frame, pd.DataFrame)
