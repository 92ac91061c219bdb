"""Units of evidence: what counts once."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from studies import study

from stemlab.analysis.units import pairs, unit_of, units
from stemlab.errors import SpecError

NAN = np.nan


def test_a_draw_counts_by_the_mean_over_its_seeds():
    frame = study(b=[[1, 3], [2, NAN], [NAN, NAN]], a=[[5, 5], [6, 8], [7, 7]])
    table = units(frame)
    assert unit_of(frame) == table.index.name == "draw"
    assert list(table.columns) == ["b", "a"]  # as they appear
    np.testing.assert_array_equal(table["b"], [2, 2, NAN])
    np.testing.assert_array_equal(table["a"], [5, 7, 7])


def test_with_one_draw_the_seed_counts():
    table = units(study(a=[[1, 2, 3]], b=[[4, NAN, 6]]))
    assert table.index.name == "seed"
    np.testing.assert_array_equal(table["b"], [4, NAN, 6])
    table = units(study(a=[1, 2]).drop(columns="seed"))
    assert table.index.name == "draw"
    table = units(study(a=[[1, 2]]).drop(columns="draw"))
    assert table.index.name == "seed"


def test_the_order_of_the_rows_does_not_matter():
    frame = study(a=[[1, 2], [3, 4], [5, 6]], b=[[6, 5], [4, 3], [2, 1]])
    mixed = frame.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(units(mixed)[["a", "b"]], units(frame), check_names=False)


def test_a_diverged_seed_makes_the_error_of_its_draw_infinite():
    table = units(study(a=[[0.5, np.inf], [0.5, 0.7], [np.inf, NAN]]), "error")
    np.testing.assert_allclose(table["a"], [np.inf, 0.4, np.inf])


def factorial(missing=()):
    """A 2 x 2 study plus an arm that has no norm: value = 10 * kernel + 100 * norm + draw."""
    rows = [
        {"arm": f"k{kernel} n{norm}", "kernel": str(kernel), "norm": norm, "draw": draw, "seed": 0,
         "value": NAN if (kernel, norm, draw) in missing else 10 * kernel + (norm or 0) * 100 + draw}
        for kernel, norm, draw in itertools.product((1, 3), (None, 1, 2), (0, 1, 2))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_level_counts_by_the_mean_over_its_arms():
    table = units(factorial(), by="norm")
    assert list(table.columns) == [1, 2]  # nested: arms without a norm are left out
    np.testing.assert_array_equal(table[1], [120, 121, 122])
    np.testing.assert_array_equal(units(factorial(), by="kernel")["3"], [130, 131, 132])


def test_a_level_lacks_a_unit_that_one_of_its_arms_lacks():
    table = units(factorial(missing={(3, 2, 1)}), by="kernel")
    np.testing.assert_array_equal(table["3"], [130, NAN, 132])
    np.testing.assert_array_equal(table["1"], [110, 111, 112])


def test_pairs_are_of_the_units_that_both_have():
    values, others = pairs(units(study(a=[1, NAN, 3, 4], b=[5, 6, NAN, 8])), "a", "b")
    assert (list(values), list(others)) == ([1, 4], [5, 8])


def test_an_arm_without_any_value_keeps_its_column():
    table = units(study(a=[1, 2], b=[NAN, NAN]))
    assert list(table.columns) == ["a", "b"]
    assert table["b"].isna().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"value": "valeu"}, r"column \(='valeu'\) is not in the frame; expected one of .*did you mean 'value'"),
        ({"by": "amr"}, r"column \(='amr'\).*did you mean 'arm'"),
        ({"value": "status"}, r"column \(='status'\) does not hold numbers"),
        ({"by": "draw"}, r"by \(='draw'\): expected arms or a factor"),
    ],
)
def test_columns_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(SpecError, match=message):
        units(study(a=[1, 2]), **arguments)
    with pytest.raises(SpecError, match="'seed'"):
        units(study(a=[1, 2]).drop(columns=["draw", "seed"]))
