"""How many pairs it takes: published numbers, and simulated studies of that size."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from studies import study

from stemlab.analysis.paired import interval
from stemlab.analysis.power import pairs_needed, t_power, units_needed
from stemlab.errors import SpecError


@pytest.mark.parametrize(
    ("effect", "power", "pairs"),
    # G*Power 3 and R's power.t.test(type = "paired").
    [(0.2, 0.8, 199), (0.5, 0.8, 34), (0.8, 0.8, 15), (1.0, 0.8, 10), (0.5, 0.95, 54)],
)
def test_the_numbers_of_the_textbooks(effect, power, pairs):
    assert pairs_needed(effect, power) == pairs
    assert pairs_needed(-effect, power) == pairs


@given(st.floats(0.01, 20), st.floats(0.06, 0.999), st.floats(0.001, 0.05))
def test_it_is_the_smallest_number_that_does(effect, power, alpha):
    n = int(pairs_needed(effect, power, alpha))
    assert t_power(effect, n, alpha) >= power
    assert n == 2 or t_power(effect, n - 1, alpha) < power


@given(st.floats(0.01, 50), st.integers(2, 200))
def test_power_is_a_probability_that_grows_with_effect_and_pairs(effect, n):
    power = t_power(effect, n)
    assert 0.05 - 1e-9 <= power <= 1 + 1e-12
    assert t_power(-effect, n) == power
    assert t_power(effect * 1.1, n) >= power - 1e-9
    assert t_power(effect, n + 1) >= power - 1e-9


@pytest.mark.parametrize("effect", [0.4, 0.8, 1.5])
def test_studies_of_that_size_find_it_that_often(effect):
    n = int(pairs_needed(effect, 0.8))
    d = np.random.default_rng(n).normal(effect, 1, (20_000, n))
    found = np.mean(stats.ttest_1samp(d, 0, axis=1).pvalue <= 0.05)
    assert found == pytest.approx(t_power(effect, n), abs=0.01)
    fewer = np.mean(stats.ttest_1samp(d[:, :-1], 0, axis=1).pvalue <= 0.05)
    assert fewer < 0.8 + 0.01


def test_the_table_of_a_study():
    rng = np.random.default_rng(0)
    base = rng.normal(0.8, 0.05, 10)
    frame = study(base=base, clear=base + rng.normal(0.1, 0.05, 10), vague=base + rng.normal(-0.01, 0.05, 10))
    table = units_needed(frame, "base").frame.set_index("arm")
    d = frame[frame["arm"] == "clear"]["value"].to_numpy() - base
    clear = table.loc["clear"]
    assert clear["n"] == 10
    assert clear["effect"] == pytest.approx(d.mean() / d.std(ddof=1))
    assert clear["needed"] == pairs_needed(clear["effect"])
    assert clear["least_difference"] == pytest.approx(interval(d)[0])
    assert clear["needed_for_least"] == pairs_needed(interval(d)[0] / d.std(ddof=1)) > clear["needed"]
    strict = units_needed(frame, "base", alpha=0.01).frame.set_index("arm").loc["clear"]
    assert strict["least_difference"] == pytest.approx(interval(d, 0.99)[0])
    vague = table.loc["vague"]
    assert vague["least_difference"] == 0
    assert vague["needed_for_least"] == math.inf
    assert "∞" in repr(units_needed(frame, "base"))
    mirrored = units_needed(frame.assign(value=-frame["value"]), "base").frame.set_index("arm")
    assert mirrored.loc["clear", "least_difference"] == pytest.approx(-clear["least_difference"])
    assert mirrored.loc["clear", "needed_for_least"] == clear["needed_for_least"]


def test_more_power_or_a_stricter_level_takes_more():
    rng = np.random.default_rng(1)
    frame = study(base=np.zeros(12), a=rng.normal(0.8, 1, 12))
    needed = [
        units_needed(frame, "base", **arguments).frame["needed"][0]
        for arguments in ({"power": 0.5}, {}, {"power": 0.95}, {"power": 0.95, "alpha": 0.01})
    ]
    assert needed == sorted(needed)
    assert len(set(needed)) == 4


def test_where_there_is_nothing_to_estimate_from():
    frame = study(
        base=[0.1, 0.2, 0.3], same=[0.1, 0.2, 0.3], more=[0.2, 0.3, 0.4], once=[0.3, np.nan, np.nan],
        gone=[np.nan] * 3,
    )  # fmt: skip
    table = units_needed(frame, "base").frame.set_index("arm")
    assert table.loc["same", ["std", "effect", "needed", "needed_for_least"]].tolist() == [0, 0, math.inf, math.inf]
    assert table.loc["more", ["effect", "needed", "needed_for_least"]].tolist() == [math.inf, 2, 2]
    assert table.loc["once", "difference"] == pytest.approx(0.2)
    assert table.loc[["once", "gone"], ["std", "needed", "needed_for_least"]].isna().all(axis=None)
    assert table["n"].tolist() == [3, 3, 1, 0]


def test_what_cannot_be_is_refused():
    frame = study(base=[1, 2], a=[2, 3])
    for arguments, message in (({"power": 80}, r"power \(=80\)"), ({"alpha": 0}, r"alpha \(=0\)")):
        with pytest.raises(SpecError, match=message):
            units_needed(frame, "base", **arguments)
    with pytest.raises(SpecError, match="did you mean 'base'"):
        units_needed(frame, "bas")
