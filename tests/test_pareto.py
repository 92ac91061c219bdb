"""Pareto fronts and hypervolumes, against their definitions and against Optuna's."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemlab.analysis import pareto


@st.composite
def trials(draw, most=7, holes=True):
    """Values on a coarse grid, so that there are ties and equals; signs; a reference in the middle of them."""
    objectives = draw(st.integers(1, 4))
    value = st.integers(0, 5).map(float)
    if holes:
        value = value | st.sampled_from([math.nan, math.inf, -math.inf])
    rows = draw(st.lists(st.tuples(*[value] * objectives), max_size=most))
    signs = draw(st.tuples(*[st.sampled_from([1, -1])] * objectives))
    reference = draw(st.tuples(*[st.integers(0, 6).map(float)] * objectives))
    return np.array(rows, dtype=float).reshape(-1, objectives), signs, reference


def dominates(a, b, signs):
    gains = [(x - y) * sign for x, y, sign in zip(a, b, signs, strict=True)]
    return min(gains) >= 0 and max(gains) > 0


def by_inclusion_and_exclusion(values, signs, reference):
    boxes = [
        room
        for row in values
        if np.isfinite(row).all() and min(room := (row - np.array(reference)) * np.array(signs)) > 0
    ]
    return sum(
        (-1) ** (size + 1) * math.prod(np.min(chosen, axis=0))
        for size in range(1, len(boxes) + 1)
        for chosen in itertools.combinations(boxes, size)
    )


@given(trials())
def test_the_ranks_are_those_of_the_definition(case):
    values, signs, _ = case
    left = {i for i, row in enumerate(values) if np.isfinite(row).all()}
    expected, rank = {}, 0
    while left:
        first = {i for i in left if not any(dominates(values[j], values[i], signs) for j in left)}
        expected |= dict.fromkeys(first, rank)
        left -= first
        rank += 1
    assert pareto.ranks(values, signs).tolist() == [expected.get(i, rank) for i in range(len(values))]
    assert pareto.front(values, signs).tolist() == [expected.get(i) == 0 for i in range(len(values))]


def test_a_row_without_a_result_is_never_on_the_front():
    assert not pareto.front([[math.nan, 1.0], [math.nan, 2.0]], (1, 1)).any()


@given(trials())
def test_the_hypervolume_is_that_of_inclusion_and_exclusion(case):
    assert pareto.hypervolume(*case) == pytest.approx(by_inclusion_and_exclusion(*case))


@given(trials())
def test_the_course_of_the_hypervolume_is_that_of_the_rows_so_far(case):
    values, signs, reference = case
    course = pareto.hypervolume_over_time(values, signs, reference)
    assert course.tolist() == pytest.approx(
        [pareto.hypervolume(values[: n + 1], *case[1:]) for n in range(len(values))]
    )


@given(trials())
def test_a_contribution_is_what_is_missed_without_the_row(case):
    values, signs, reference = case
    whole = pareto.hypervolume(*case)
    missed = [whole - pareto.hypervolume(np.delete(values, i, axis=0), signs, reference) for i in range(len(values))]
    assert pareto.contributions(*case).tolist() == pytest.approx(missed)


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_the_hypervolume_of_many_rows_is_optunas(objectives):
    hypervolume = pytest.importorskip("optuna._hypervolume")
    losses = np.random.default_rng(objectives).random((40, objectives))
    expected = hypervolume.compute_hypervolume(losses, np.full(objectives, 1.1))
    assert pareto.hypervolume(losses, [-1] * objectives, [1.1] * objectives) == pytest.approx(expected)


@given(trials())
def test_places_go_by_rank_and_the_best_of_a_rank_adds_most(case):
    values, signs, _ = case
    known = np.isfinite(values).all(axis=1)
    found = pareto.places(values, signs)
    assert sorted(found[known]) == list(range(known.sum()))
    assert (found[~known] == known.sum()).all()
    order = np.argsort(found)[: known.sum()]
    assert (np.diff(pareto.ranks(values, signs)[order]) >= 0).all()


@given(trials(holes=False))
def test_places_do_not_depend_on_the_units(case):
    values, signs, _ = case
    scaled = values * np.arange(2, 2 + len(signs)) * 1024 - 64
    assert pareto.places(values, signs).tolist() == pareto.places(scaled, signs).tolist()


def test_of_one_rank_the_lonely_and_the_outermost_come_first():
    # On a line: the third stands next to the second, which therefore adds little, as it does itself.
    values = [[0.0, 1.0], [0.5, 0.5], [0.55, 0.45], [1.0, 0.0], [0.2, 0.2]]
    found = pareto.places(values, (1, 1))
    assert set(found[[0, 3]]) == {0, 1}
    assert found[4] == 4
