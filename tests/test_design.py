"""Designs: which arms a file's choices make, and that every arm has the same draws."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemlab import SpecError, space
from stemlab.design import RESERVED, Design
from stemlab.fractional import fraction
from stemlab.spec import AblationSettings
from stemlab.spec.files import parse

NESTED = """
model:
  stem:
    choice:
      conv: {channels: 8, norm: {choice: [batch, none]}, act: {choice: [relu, gelu]}}
      patchify: {patch: 8}
      layered: {channels: 8, norm: {choice: [layer]}, dropped: {uniform: [0.0, 1.0]}}
train:
  optimizer: {choice: [adamw, sgd]}
  lr: {log_uniform: [1.0e-4, 1.0e-2]}
"""


def design(text: str, **settings) -> Design:
    return Design.of(AblationSettings(**settings), parse(text, "study.yaml"))


def test_a_full_design_crosses_all_open_factors():
    made = design(NESTED)
    assert len(made.arms) == (2 * 2 + 1 + 1) * 2
    assert made.baseline.levels == {"stem": "conv", "norm": "batch", "act": "relu", "optimizer": "adamw"}
    assert {factor.name: factor.levels for factor in made.factors} == {
        "stem": ("conv", "patchify", "layered"),
        "norm": ("batch", "none", "layer"),  # of both stems that have norms
        "act": ("relu", "gelu"),
        "optimizer": ("adamw", "sgd"),
    }
    assert [nuisance.name for nuisance in made.nuisances] == ["dropped", "lr"]
    patchify = [arm for arm in made.arms if arm.levels["stem"] == "patchify"]
    assert all(set(arm.levels) == {"stem", "optimizer"} for arm in patchify)


def test_one_factor_at_a_time():
    made = design(NESTED, design="one_at_a_time", baseline={"optimizer": "sgd", "act": "gelu"})
    assert made.baseline.levels == {"stem": "conv", "norm": "batch", "act": "gelu", "optimizer": "sgd"}
    others = [
        {name for name in ("stem", "norm", "act", "optimizer") if arm.levels.get(name) != made.baseline.levels[name]}
        for arm in made.arms[1:]
    ]
    assert sorted(map(sorted, others)) == [
        ["act"],
        ["act", "norm", "stem"],
        ["act", "norm", "stem"],
        ["norm"],
        ["optimizer"],
    ]


@given(seed=st.integers(0, 2**32 - 1), draws=st.integers(1, 6))
def test_all_arms_share_the_draws(seed, draws):
    made = design(NESTED, draws=draws, draw_seed=seed)
    assert len(made.cells) == draws * len(made.arms)
    for draw in range(draws):
        rates = {made.drawn(arm, draw)["lr"] for arm in made.arms}
        assert len(rates) == 1
        assert 1e-4 <= min(rates) <= 1e-2
        assert {"dropped" in made.drawn(arm, draw) for arm in made.arms} == {True, False}
    # More draws leave the first ones as they were.
    assert design(NESTED, draws=draws + 1, draw_seed=seed).draws[:draws] == made.draws


def test_a_hole_inside_options_is_drawn_at_the_same_place_of_each_range():
    text = """
    train:
      choice:
        AdamW: {optimizer: adamw, lr: {log_uniform: [1.0e-4, 1.0e-2]}}
        SGD: {optimizer: sgd, lr: {log_uniform: [1.0e-2, 1.0]}}
    """
    made = design(text, draws=5, names={"train": "optimizer"})
    assert [factor.name for factor in made.factors] == ["optimizer"]
    adamw, sgd = made.arms
    for draw in range(5):
        assert made.drawn(sgd, draw)["lr"] == pytest.approx(100 * made.drawn(adamw, draw)["lr"])
    assert (made.nuisances[0].low, made.nuisances[0].high, made.nuisances[0].log) == (1e-4, 1.0, True)


@given(st.data())
def test_every_cell_fills_every_open_hole(data):
    made = design(NESTED, draws=3, design=data.draw(st.sampled_from(["full", "one_at_a_time"])))
    document = parse(NESTED, "study.yaml").data
    for arm, draw in made.cells:
        filled = space.fill(document, made.holes, made.point(arm, draw))
        assert "choice" not in str(filled)
        assert "uniform" not in str(filled)
    assert len({str(sorted(arm.point.items())) for arm in made.arms}) == len(made.arms)
    assert len({arm.label for arm in made.arms}) == len(made.arms)


@given(factors=st.integers(1, 7), levels=st.sampled_from([2, 3]), resolution=st.integers(3, 5))
def test_a_fraction_holds_every_combination_of_few_factors_equally_often(factors, levels, resolution):
    rows = fraction(factors, levels, resolution)
    assert rows[0] == (0,) * factors
    assert len(set(rows)) == len(rows) <= levels**factors
    strength = min(resolution - 1, factors)
    for chosen in combinations(range(factors), strength):
        counts = Counter(tuple(row[i] for i in chosen) for row in rows)
        assert len(counts) == levels**strength
        assert len(set(counts.values())) == 1


@pytest.mark.parametrize(
    ("factors", "resolution", "runs"),
    [(3, 3, 4), (7, 3, 8), (4, 4, 8), (8, 4, 16), (5, 5, 16), (6, 5, 32), (8, 5, 64), (11, 3, 16)],
)
def test_fractions_are_as_small_as_the_tables_say(factors, resolution, runs):
    """Box, Hunter & Hunter, Statistics for Experimenters, table 12.15."""
    assert len(fraction(factors, 2, resolution)) == runs


def test_a_fractional_design_begins_with_the_baseline():
    text = "train: {" + ", ".join(f"{name}: {{choice: [1, 2]}}" for name in "abcde") + "}"
    made = design(text, design="fractional", resolution=3, baseline={"a": 2})
    assert len(made.arms) == 8
    assert set(made.baseline.levels.values()) == {"2", "1"}
    assert made.baseline.levels["a"] == "2"
    assert "8 of 32" in made.note


def test_names_are_as_short_as_they_can_be():
    text = (
        "model: {stem: {a: {k: 3, norm: {choice: [1, 2]}}, b: {k: 3, norm: {choice: [1, 2]}}, depth: {choice: [1, 2]}}}"
    )
    names = [factor.name for factor in design(text).factors]
    assert names == ["a.norm", "b.norm", "stem.depth"]
    assert not set(names) & set(RESERVED)


def test_levels_are_called_by_their_names_or_values():
    text = """
    model:
      stem: {choice: [{patch: 8}, {channels: [8, 16], norm: batch, act: relu}]}
    train: {clip: {choice: [null, 1.0e-3]}, ema: {choice: [true, false]}}
    """
    levels = [factor.levels for factor in design(text).factors]
    assert levels == [("patchify 8", "conv 3x3 8/2-16/2 batch relu"), ("null", "0.001"), ("true", "false")]
    assert design(text).arms[-1].label == "conv 3x3 8/2-16/2 batch relu, clip=0.001, ema=false"


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("train: {lr: {uniform: [0.0, 1.0]}}", {}, "at least one choice"),
        ("train: {a: {choice: [1, 2]}}", {"draws": 2}, "need a hole to draw"),
        ("train: {a: {choice: [1, 2]}}", {"baseline": {"b": 1}}, r"unknown factor 'b'; expected one of a"),
        ("train: {act: {choice: [relu, gelu]}}", {"baseline": {"act": "rely"}}, r"did you mean 'relu'"),
        ("train: {act: {choice: [relu, gelu]}}", {"names": {"train.ac": "x"}}, r"did you mean 'train.act'"),
        ("train: {act: {choice: [relu, gelu]}}", {"names": {"train.act": "seed"}}, "is taken"),
        ("train: {a: {choice: [1, '1']}}", {}, "two options are called '1'"),
        ("train: {a: {choice: [1, 2]}, b: {choice: [1, 2, 3]}}", {"design": "fractional", "resolution": 3}, "one_at_a"),
        (NESTED, {"design": "fractional", "resolution": 3}, "has others inside"),
        ("train: {" + ", ".join(f"a{i}: {{choice: [1, 2]}}" for i in range(13)) + "}", {}, "8192 combinations"),
    ],
)
def test_what_cannot_be_designed_is_refused_with_its_place(text, settings, message):
    with pytest.raises(SpecError, match=message) as caught:
        design(text, **settings)
    assert str(caught.value).startswith("study.yaml")


def test_a_design_of_thousands_of_cells_is_made_at_once():
    text = "train: {" + ", ".join(f"a{i}: {{choice: [1, 2]}}" for i in range(12)) + ", lr: {uniform: [0.0, 1.0]}}"
    made = design(text, draws=4)
    assert len(made.cells) == 4 * 2**12 == math.prod((4, len(made.arms)))
