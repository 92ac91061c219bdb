"""Effects of designs: known answers by hand and by least squares, planted effects found, and no effects invented."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from ablation_frames import additive, arm_table, crossed, half_fraction, label, one_at_a_time, results
from hypothesis import given, settings
from hypothesis import strategies as st

from stemlab.analysis.contrasts import arm_levels, contrast
from stemlab.analysis.effects import effects
from stemlab.errors import SpecError

FACTORS = {"norm": ["batch", "layer", "none"], "act": ["relu", "gelu"], "opt": ["adamw", "sgd"]}
STEMS = [
    {"stem": "conv", "norm": "batch", "opt": "adamw"},
    {"stem": "conv", "norm": "batch", "opt": "sgd"},
    {"stem": "conv", "norm": "none", "opt": "adamw"},
    {"stem": "conv", "norm": "none", "opt": "sgd"},
    {"stem": "patch", "opt": "adamw"},
    {"stem": "patch", "opt": "sgd"},
]


def found(result, factor, level):
    frame = result.frame
    return frame[(frame["factor"] == factor) & (frame["level"] == level)].iloc[0]


def of(weights, values):
    return sum(weight * values[arm] for arm, weight in weights.items())


# Contrasts.


def test_a_full_factorial_gives_the_difference_of_marginal_means_and_that_of_least_squares():
    arms = arm_table(crossed(**FACTORS))
    values = pd.Series(np.random.default_rng(0).normal(size=len(arms)), index=arms.index)
    marginal = values.groupby(arms["norm"]).mean()
    by_contrast = of(contrast(arms, {"norm": ("batch", "none")}), values)
    columns = [arms[name] == level for name, levels in FACTORS.items() for level in levels[1:]]
    slopes = np.linalg.lstsq(np.column_stack([np.ones(len(arms)), *columns]).astype(float), values, rcond=None)[0]
    assert by_contrast == pytest.approx(marginal["none"] - marginal["batch"])
    assert by_contrast == pytest.approx(slopes[2])


def test_an_interaction_is_the_difference_of_differences():
    arms = arm_table(crossed(norm=["batch", "none"], opt=["adamw", "sgd"]))
    weights = contrast(arms, {"norm": ("batch", "none"), "opt": ("adamw", "sgd")})
    swapped = contrast(arms, {"opt": ("adamw", "sgd"), "norm": ("batch", "none")})
    expected = {
        "norm=batch, opt=adamw": 1.0,
        "norm=batch, opt=sgd": -1.0,
        "norm=none, opt=adamw": -1.0,
        "norm=none, opt=sgd": 1.0,
    }
    assert dict(weights) == dict(swapped) == expected


def test_one_at_a_time_gives_an_arm_minus_the_baseline():
    settings = one_at_a_time(**FACTORS)
    weights = contrast(arm_table(settings), {"act": ("relu", "gelu")})
    assert dict(weights) == {label(settings[0]): -1.0, "norm=batch, act=gelu, opt=adamw": 1.0}


def test_a_regular_fraction_gives_the_difference_of_marginal_means():
    arms = arm_table(half_fraction("abcd", "abcd"))
    weights = contrast(arms, {"a": ("0", "1")})
    assert weights.attrs["contexts"] == 0
    assert dict(weights.round(12)) == {arm: 0.25 if arms["a"][arm] == "1" else -0.25 for arm in arms.index}


def test_a_fraction_of_resolution_five_tells_interactions_and_one_of_four_does_not():
    arms = arm_table(half_fraction("abcde", "abcde"))
    values = {arm: int(row["a"]) * int(row["b"]) + 3 * int(row["c"]) for arm, row in arms.iterrows()}
    assert of(contrast(arms, {"a": ("0", "1"), "b": ("0", "1")}), values) == pytest.approx(1.0)
    assert of(contrast(arms, {"a": ("0", "1"), "c": ("0", "1")}), values) == pytest.approx(0.0)
    with pytest.raises(SpecError, match="a × b: no setting of the other factors has all four combinations"):
        contrast(arm_table(half_fraction("abcd", "abcd")), {"a": ("0", "1"), "b": ("0", "1")})


def test_an_outer_factor_is_averaged_over_what_only_one_side_opens():
    weights = contrast(arm_table(STEMS), {"stem": ("conv", "patch")})
    assert dict(weights) == {
        label(s): 0.5 if s["stem"] == "patch" else -0.25 for s in STEMS
    }  # fmt: skip
    at_baseline = contrast(arm_table(STEMS), {"stem": ("conv", "patch")}, inner="baseline")
    assert dict(at_baseline) == {
        label(s): 0.5 if s["stem"] == "patch" else -0.5 for s in STEMS if s.get("norm") != "none"
    }


def test_the_arm_that_one_inner_factor_at_a_time_was_changed_from_stands_for_them():
    inner = one_at_a_time(norm=["layer", "batch", "none"], act=["relu", "gelu"])
    arms = arm_table([{"stem": "conv", **s} for s in reversed(inner)] + [{"stem": "patch"}])
    weights = contrast(arms, {"stem": ("patch", "conv")}, inner="baseline")
    assert dict(weights) == {"stem=patch": -1.0, "stem=conv, norm=layer, act=relu": 1.0}


def test_an_inner_factor_is_compared_where_it_is_open():
    weights = contrast(arm_table(STEMS), {"norm": ("batch", "none")})
    assert dict(weights) == {label(s): 0.5 if s["norm"] == "none" else -0.5 for s in STEMS if "norm" in s}


def test_inner_factors_that_both_sides_open_make_contexts_and_what_they_open_is_averaged():
    settings = [
        {"stem": "a", "norm": "batch", "eps": "1"},
        {"stem": "a", "norm": "batch", "eps": "2"},
        {"stem": "a", "norm": "none"},
        {"stem": "b", "norm": "batch"},
        {"stem": "b", "norm": "layer", "eps": "1"},
    ]
    weights = contrast(arm_table(settings), {"stem": ("a", "b")})
    assert dict(weights) == {
        "stem=a, norm=batch, eps=1": -0.5,
        "stem=a, norm=batch, eps=2": -0.5,
        "stem=b, norm=batch": 1.0,
    }


def test_where_fixes_a_factor_in_the_arms_that_can_open_it():
    arms = arm_table(STEMS)
    outer = contrast(arms, {"stem": ("conv", "patch")}, {"norm": "none", "opt": "sgd"})
    assert dict(outer) == {"stem=conv, norm=none, opt=sgd": -1.0, "stem=patch, opt=sgd": 1.0}
    other = contrast(arms, {"opt": ("adamw", "sgd")}, {"norm": "none"})
    assert dict(other) == {"stem=conv, norm=none, opt=adamw": -1.0, "stem=conv, norm=none, opt=sgd": 1.0}


@pytest.mark.parametrize(
    ("compare", "where", "message"),
    [
        ({"nrm": ("batch", "none")}, {}, r"unknown factor 'nrm'; expected one of .*did you mean 'norm'"),
        (
            {"norm": ("batch", "non")},
            {},
            r"'non' is no level of norm; expected one of batch, none \(did you mean 'none'",
        ),
        ({"norm": ("batch", "none")}, {"norm": "batch"}, "factor 'norm' is compared"),
        ({"norm": ("none", "none")}, {}, "compared with itself"),
        ({}, {}, "one factor or of two, got 0"),
        ({"stem": ("conv", "patch"), "norm": ("batch", "none")}, {}, "no arm has stem=patch, norm=batch"),
        ({"norm": ("batch", "none")}, {"stem": "patch"}, "no arm has norm=batch, stem=patch"),
    ],
)
def test_a_contrast_that_there_is_not_says_what_is_missing(compare, where, message):
    with pytest.raises(SpecError, match=message):
        contrast(arm_table(STEMS), compare, where)


def test_levels_that_never_meet_are_not_compared():
    arms = arm_table([{"a": "0", "b": "0"}, {"a": "1", "b": "1"}])
    with pytest.raises(SpecError, match="a 0 and 1 never meet in the same setting of the other factors"):
        contrast(arms, {"a": ("0", "1")})


def connected(settings):
    """Whether an additive model of these arms tells every effect."""
    cells = sorted({item for s in settings for item in s.items()})
    columns = np.array([[float(item in s.items()) for item in cells] for s in settings])
    factors = {name for name, _ in cells}
    return np.linalg.matrix_rank(columns) == len(cells) - len(factors) + 1


@given(st.data())
@settings(max_examples=60)
def test_planted_additive_effects_are_found_exactly_in_any_connected_design(data):
    factors = {
        name: [str(i) for i in range(data.draw(st.integers(2, 3)))] for name in "abcd"[: data.draw(st.integers(2, 4))]
    }
    full = crossed(**factors)
    chosen = data.draw(st.lists(st.sampled_from(full), min_size=1, unique_by=label))
    parts = {(name, level): data.draw(st.integers(-5, 5)) for name, levels in factors.items() for level in levels}
    if not connected(chosen):
        chosen = full
    arms = arm_table(chosen)
    values = {label(s): sum(parts[item] for item in s.items()) for s in chosen}
    for name in factors:
        present = sorted(set(arms[name]))
        for level in present[1:]:
            effect = of(contrast(arms, {name: (present[0], level)}), values)
            assert effect == pytest.approx(parts[name, level] - parts[name, present[0]], abs=1e-8)


# Effects.


def test_effects_say_the_planted_ones_with_intervals_that_hold_them():
    parts = {("norm", "none"): -0.5, ("act", "gelu"): 0.25}
    frame = results(crossed(**FACTORS), additive(parts, noise=0.02), draws=12, seeds=2)
    result = effects(frame, FACTORS)
    for factor, level, planted in [("norm", "none", -0.5), ("norm", "layer", 0.0), ("act", "gelu", 0.25)]:
        row = found(result, factor, level)
        assert row["difference"] == pytest.approx(planted, abs=0.02)
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["n"] == 12
    assert found(result, "norm", "none")["p_corrected"] < 0.05
    assert found(result, "norm × act", "none × gelu")["baseline"] == "batch × relu"
    assert (result.frame["p_corrected"] >= result.frame["p"]).all()
    assert list(result.frame["kind"]) == ["main"] * 4 + ["interaction"] * 5


def test_what_all_arms_share_of_a_unit_cancels():
    frame = results(crossed(**FACTORS), additive({("act", "gelu"): 0.25}), draws=6)
    row = found(effects(frame, FACTORS), "act", "gelu")
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((0.25, 0.25, 0.25))


def test_the_baseline_is_the_first_level_named_whatever_the_order_of_rows():
    frame = results(crossed(**FACTORS), additive({("act", "gelu"): 0.25}), draws=4).sample(frac=1, random_state=0)
    factors = {**FACTORS, "act": ["gelu", "relu"]}
    assert found(effects(frame, factors), "act", "relu")["difference"] == pytest.approx(-0.25)


def test_one_at_a_time_says_which_interactions_it_cannot_tell():
    frame = results(one_at_a_time(**FACTORS), additive({}), draws=4)
    result = effects(frame, FACTORS)
    assert set(result.frame["kind"]) == {"main"}
    assert "Not told by these arms: norm × act, norm × opt, act × opt." in result.method
    assert "Not told" not in effects(frame, FACTORS, interactions=False).method


def test_a_table_too_long_for_its_units_says_so():
    few = effects(results(crossed(**FACTORS), additive({("act", "gelu"): 1.0}), draws=7), FACTORS)
    assert few.frame["p_corrected"].min() == pytest.approx(9 / 64)
    assert "With 7 units and 9 effects p_corrected cannot be below 0.14" in few.method
    enough = effects(results(crossed(**FACTORS), additive({("act", "gelu"): 1.0}), draws=9), FACTORS)
    assert "cannot be below" not in enough.method


def test_a_fraction_finds_planted_main_effects_exactly_and_says_that_it_is_one():
    factors = {name: ["0", "1"] for name in "abcd"}
    parts = {("a", "1"): 1.0, ("b", "1"): -2.0, ("d", "1"): 0.5}
    result = effects(results(half_fraction("abcd", "abcd"), additive(parts), draws=3), factors)
    got = result.frame.set_index("factor")["difference"]
    assert dict(got) == pytest.approx({"a": 1.0, "b": -2.0, "c": 0.0, "d": 0.5})
    assert "aliased" in result.method


def test_nested_factors_are_told_where_they_are_open():
    factors = {"stem": ["conv", "patch"], "norm": ["batch", "none"], "opt": ["adamw", "sgd"]}
    parts = {("stem", "patch"): -1.0, ("norm", "none"): -0.5, ("opt", "sgd"): -0.25}
    frame = results(STEMS, additive(parts), draws=3)
    result = effects(frame, factors)
    assert found(result, "norm", "none")["difference"] == pytest.approx(-0.5)
    assert found(result, "opt", "sgd")["difference"] == pytest.approx(-0.25)
    assert found(result, "stem", "patch")["difference"] == pytest.approx(-1.0 + 0.25)
    at_baseline = effects(frame, factors, inner="baseline")
    assert found(at_baseline, "stem", "patch")["difference"] == pytest.approx(-1.0)
    assert "Not told by these arms: stem × norm." in result.method


def test_a_unit_that_lacks_an_arm_is_left_out_of_its_effects_alone():
    frame = results(one_at_a_time(**FACTORS), additive({("act", "gelu"): 0.25}), draws=5)
    frame.loc[(frame["act"] == "gelu") & (frame["draw"] == 2), "value"] = np.nan
    result = effects(frame, FACTORS)
    assert found(result, "act", "gelu")["n"] == 4
    assert found(result, "opt", "sgd")["n"] == 5
    frame.loc[frame["act"] == "gelu", "value"] = np.nan
    assert "Not told by these arms: act=gelu" in effects(frame, FACTORS).method


def test_with_one_draw_the_seeds_are_the_units():
    frame = results(crossed(act=["relu", "gelu"]), additive({("act", "gelu"): 0.25}), seeds=5)
    assert found(effects(frame, {"act": ["relu", "gelu"]}), "act", "gelu")["n"] == 5


def test_frames_that_cannot_be_read_are_refused():
    frame = results(crossed(act=["relu", "gelu"]), additive({}), seeds=2)
    with pytest.raises(SpecError, match=r"column \(='akt'\) is not in the frame; expected .*did you mean 'act'"):
        effects(frame, {"akt": ["relu", "gelu"]})
    frame["arm"] = "the same"
    with pytest.raises(SpecError, match="arm 'the same' has more than one level of a factor"):
        arm_levels(frame, ["act"])


def test_where_there_is_nothing_next_to_nothing_is_found():
    """The share of studies with any effect called so, after Holm's correction, is what it is said to be."""
    rng = np.random.default_rng(0)
    factors = {"a": ["0", "1", "2"], "b": ["0", "1"]}
    arms = [label(s) for s in crossed(**factors)]
    template = results(crossed(**factors), lambda *_: 0.0, draws=8)
    wrong = 0
    for study in range(120):
        # What one draw adds is common to the arms; the rest is noise of each run.
        template["value"] = np.repeat(rng.normal(size=8), len(arms)) + 0.3 * rng.normal(size=len(template))
        result = effects(template, factors, resamples=500, seed=study)
        wrong += bool((result.frame["p_corrected"] <= 0.05).any())
    assert wrong / 120 <= 0.06
