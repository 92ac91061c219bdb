"""Do tuners and early stopping reach the best twentieth sooner than random search? Replayed over tables of all trials.

docs/search.md has the numbers, also where the answer is no.
"""

from __future__ import annotations

import math
import statistics

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
@pytest.mark.parametrize("name", ["recipe", "stack"])
def test_tpe_comes_to_the_top_in_fewer_trials_than_random_search(name):
    tpe, random = over_seeds(name, "tpe")[0], over_seeds(name, "random")[0]
    assert found(tpe) == found(random) == 20
    assert statistics.median(tpe) < statistics.median(random)
    assert statistics.fmean(tpe) < 0.6 * statistics.fmean(random)


@pytest.mark.slow
def test_on_recipes_halving_comes_to_the_top_in_fewer_epochs_than_random_search():
    halving, random = over_seeds("recipe", "halving")[1], over_seeds("recipe", "random")[1]
    assert found(halving) == 20
    assert statistics.median(halving) < statistics.median(random)


@pytest.mark.slow
def test_where_the_first_epochs_say_little_halving_is_no_gain_as_the_docs_say():
    for name in ("shape", "stack"):
        assert statistics.median(over_seeds(name, "halving")[1]) > statistics.median(over_seeds(name, "random")[1])
    assert found(over_seeds("shape", "halving from one epoch")[1]) < 10
