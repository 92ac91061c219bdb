"""Do tuners and early stopping reach the best twentieth sooner than random search? Replayed over tables of all trials.

docs/search.md has the numbers, also where the answer is no.
"""

from __future__ import annotations

import math

import pytest
from enumerated import SPACES, over_seeds, replay, table

from stemlab import space
from stemlab.errors import InfeasibleError


def found(values: list[float]) -> int:
    return sum(map(math.isfinite, values))


@pytest.mark.parametrize("name", SPACES)
def test_the_table_has_every_feasible_point(name):
    known = table(name)
    feasible = set()
    for point in space.enumerate_points(known.candidates.holes):
        try:
            feasible.add(known.candidates.make(point).identity)
        except InfeasibleError:
            continue
    assert feasible == set(known.curves)
    assert math.ceil(len(feasible) / 20) <= len(known.top) < len(feasible) / 10


def test_a_replay_is_the_same_again_and_counts_whole_trials():
    first = replay("stack", 3, tuner="tpe")
    assert first == replay("stack", 3, tuner="tpe")
    proposals, epochs = first
    assert epochs == proposals * table("stack").epochs


def test_grid_search_finds_the_first_of_the_top_where_it_stands():
    known = table("stack")
    order = [known.candidates.make(p).identity for p in space.enumerate_points(known.candidates.holes)]
    first = min(map(order.index, known.top)) + 1
    assert replay("stack", 0, tuner="grid", trials=72)[0] == first


@pytest.mark.slow
def test_on_recipes_tpe_and_evolution_always_find_the_top_and_random_search_does_not():
    random = found(over_seeds("recipe", "random")[0])
    assert random < found(over_seeds("recipe", "tpe")[0]) == 20
    assert random < found(over_seeds("recipe", "evolution")[0]) == 20


@pytest.mark.slow
def test_on_recipes_halving_drops_the_top_early_as_the_docs_say():
    assert found(over_seeds("recipe", "halving")[1]) < found(over_seeds("recipe", "random")[1])
