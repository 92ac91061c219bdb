"""Holes: counting, drawing, enumerating and filling agree; and so do they in NNI's words."""

from __future__ import annotations

import copy
import json
import random

import pytest
from conftest import CONV3X3
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import discrete_documents, documents, int_holes, log_uniform_holes, study_documents, uniform_holes

from stemlab import InfeasibleError, SpecError, space
from stemlab.engine import tuners
from stemlab.engine.proposer import TunerProposer
from stemlab.running import load_search
from stemlab.spec.files import Document
from stemlab.spec.search import NNI_TUNERS, TUNERS

MOST = 400


def holes_of(data) -> tuple[space.Hole, ...]:
    return space.find(Document(data, "<test>"))


def key(point) -> str:
    return json.dumps(point, sort_keys=True)


def open_holes(data, path=""):
    """Name every hole of a filled-in document's original that stands outside any choice."""
    if space.is_hole(data):
        yield path
    elif isinstance(data, dict):
        for name, item in data.items():
            yield from open_holes(item, f"{path}.{name}" if path else name)
    elif isinstance(data, list):
        for index, item in enumerate(data):
            yield from open_holes(item, f"{path}[{index}]")


def contains_hole(data) -> bool:
    return any(True for _ in open_holes(data))


def by_hand(data, point, path=""):
    """Fill a document the plain way, top down; also name the holes that were open."""
    if space.is_hole(data):
        ((kind, content),) = data.items()
        value = point[path]
        if kind != "choice":
            return value, {path}
        named = {f".{name}": option for name, option in content.items()} if isinstance(content, dict) else {}
        place, option = list(named.items())[value] if named else (f"[{value}]", content[value])
        filled, names = by_hand(option, point, f"{path}.choice{place}".lstrip("."))
        return filled, {path} | names
    if isinstance(data, dict):
        parts = {k: by_hand(v, point, f"{path}.{k}" if path else k) for k, v in data.items()}
        return {k: v for k, (v, _) in parts.items()}, set().union(*(names for _, names in parts.values()))
    if isinstance(data, list):
        items = [by_hand(v, point, f"{path}[{i}]") for i, v in enumerate(data)]
        return [v for v, _ in items], set().union(*(names for _, names in items))
    return data, set()


@given(discrete_documents)
@settings(max_examples=200)
def test_count_is_the_number_of_distinct_points(data):
    holes = holes_of(data)
    assume(space.count(holes) <= MOST)
    points = list(space.enumerate_points(holes))
    assert len(points) == space.count(holes)
    assert len({key(point) for point in points}) == len(points)


@given(discrete_documents, st.integers(0, 2**32))
@settings(max_examples=200)
def test_every_draw_is_among_the_enumerated(data, seed):
    holes = holes_of(data)
    assume(space.count(holes) <= MOST)
    known = {key(point) for point in space.enumerate_points(holes)}
    rng = random.Random(seed)
    assert all(key(space.draw(holes, rng)) in known for _ in range(20))


def test_draws_reach_every_point():
    holes = holes_of({"a": {"choice": [1, {"choice": [2, {"int": [3, 5]}]}]}, "b": {"choice": ["x", "y"]}})
    rng = random.Random(0)
    assert len({key(space.draw(holes, rng)) for _ in range(2000)}) == space.count(holes) == 10


@given(documents, st.integers(0, 2**32))
@settings(max_examples=200)
def test_fill_leaves_no_hole_and_the_original_as_it_was(data, seed):
    before = copy.deepcopy(data)
    holes = holes_of(data)
    point = space.draw(holes, random.Random(seed))
    filled = space.fill(data, holes, point)
    expected, names = by_hand(data, point)
    assert data == before
    assert not contains_hole(filled)
    assert filled == expected
    assert set(space.assignment(holes, point)) == set(point) == names


@given(documents, st.integers(0, 2**32))
@settings(max_examples=100)
def test_assignment_holds_the_values_put_in(data, seed):
    holes = holes_of(data)
    point = space.draw(holes, random.Random(seed))
    filled = space.fill(data, holes, point)
    values = space.assignment(holes, point)
    for hole in holes:
        found = filled
        for step in hole.path:
            found = found[step]
        key = hole.keys[point[hole.name]] if hole.kind == "choice" else 0
        assert values[hole.name] == (key if isinstance(key, str) else found)  # an option that has a name goes by it
    assert not any(contains_hole(value) for value in values.values())


@given(documents, st.integers(0, 2**32))
@settings(max_examples=50)
def test_same_seed_same_draws(data, seed):
    holes = holes_of(data)
    first, second = (random.Random(seed) for _ in range(2))
    assert [space.draw(holes, first) for _ in range(5)] == [space.draw(holes, second) for _ in range(5)]


@given(st.one_of(int_holes, uniform_holes, log_uniform_holes), st.integers(0, 2**32))
@settings(max_examples=200)
def test_draws_stay_within_their_limits(data, seed):
    (hole,) = holes_of({"x": data})
    ((kind, (low, high)),) = data.items()
    rng = random.Random(seed)
    for _ in range(20):
        value = hole.draw(rng)
        assert low <= value <= high
        assert kind != "int" or type(value) is int


def test_int_draws_include_both_limits():
    (hole,) = holes_of({"x": {"int": [-1, 2]}})
    rng = random.Random(0)
    assert {hole.draw(rng) for _ in range(200)} == {-1, 0, 1, 2}


def test_log_uniform_draws_are_uniform_in_the_logarithm():
    (hole,) = holes_of({"x": {"log_uniform": [1e-4, 1.0]}})
    rng = random.Random(0)
    below = sum(hole.draw(rng) < 1e-2 for _ in range(4000)) / 4000
    assert abs(below - 0.5) < 0.03


def test_a_continuous_space_is_infinite_and_cannot_be_enumerated():
    holes = holes_of({"x": {"uniform": [0, 1]}})
    assert space.count(holes) == float("inf")
    with pytest.raises(SpecError, match="x: a uniform hole"):
        list(space.enumerate_points(holes))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"choice": []}, "at least one option"),
        ({"choice": 3}, "at least one option"),
        ({"choice": {}}, "at least one option"),
        ({"choice": {"a": 1, "b": 1}}, "holds 1 twice"),
        ({"choice": {"a": {"int": [5, 4]}}}, r"model\.x\.choice\.a\.int"),
        ({"choice": [1, 2, 1]}, "holds 1 twice"),
        ({"int": [1]}, "two numbers"),
        ({"int": [1, 2.5]}, "whole numbers"),
        ({"int": [2, 1]}, r"\[2, 1\]"),
        ({"uniform": [0, float("inf")]}, "finite"),
        ({"uniform": ["a", "b"]}, "two numbers"),
        ({"log_uniform": [0, 1]}, "low > 0"),
        ({"choice": [{"int": [5, 4]}]}, r"model\.x\.choice\[0\]\.int"),
    ],
)
def test_a_bad_hole_is_a_spec_error_that_names_its_place(data, message):
    with pytest.raises(SpecError, match=message):
        holes_of({"model": {"x": data}})


@given(study_documents(), st.integers(0, 2**32))
@settings(max_examples=40)
def test_every_point_is_a_candidate_or_infeasible(study, seed):
    candidates = load_search(study)
    rng = random.Random(seed)
    for _ in range(12):
        point = space.draw(candidates.holes, rng)
        try:
            made = candidates.make(point)
        except InfeasibleError:
            continue
        assert made.assignments[0] == space.assignment(candidates.holes, point)
        assert [trial.seed for trial in made.trials] == study["search"]["seeds"]
        assert made.identity == candidates.make(point).identity
        assert abs(made.matched.error or 0) <= 0.01 or "constraints" not in study


def test_shipped_space_has_the_points_it_says():
    candidates = load_search(CONV3X3, ["constraints={}"])
    assert candidates.size == 1 + 3 * 3 * 4 + 3 * 4 * 3 * 4
    assert len({candidates.make(p).identity for p in space.enumerate_points(candidates.holes)}) == candidates.size


# In NNI's words.

NESTED = {
    "a": {"choice": [{"patch": {"choice": [1, {"deep": {"choice": [10, 20, 30]}}]}}, {"n": {"int": [2, 4]}}, 7]},
    "b": {"int": [-1, 1]},
    "c": {"choice": ["x", "y"]},
}
RANGES = {**NESTED, "lr": {"log_uniform": [1e-5, 1e-1]}, "d": {"choice": [0, {"uniform": [-1, 1]}]}}


def proposals(name: str, data, number: int) -> list[space.Point]:
    """Let an NNI tuner propose on a space, with a result for each, until it has no more to say."""
    from nni import NoMoreTrialError

    holes = holes_of(data)
    tuner = tuners.make(name, "maximize", seed=0, options={}, trials=number)
    tuner.update_search_space(tuners.to_nni(name, holes))
    points = []
    for index in range(number):
        try:
            parameters = tuner.generate_parameters(index)
        except NoMoreTrialError:
            break
        points.append(tuners.from_nni(holes, parameters))
        tuner.receive_trial_result(index, parameters, random.Random(index).random())
        tuner.trial_end(index, True)
    return points


SLOW = {"gp", "optuna_gp"}
"""Gaussian processes think for a tenth of a second or more."""


def slowly(names) -> list:
    """The names as parameters, those of slow tuners marked."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in sorted(names)]


@pytest.mark.parametrize("name", slowly(NNI_TUNERS))
def test_what_nni_proposes_is_a_point_of_our_space(name):
    known = {key(point) for point in space.enumerate_points(holes_of(NESTED))}
    found = {key(point) for point in proposals(name, NESTED, 60)}
    assert found <= known
    assert len(found) > 15


@pytest.mark.parametrize("name", slowly(NNI_TUNERS))
def test_what_nni_proposes_for_ranges_stays_within_them(name):
    points = proposals(name, RANGES, 60)
    assert len(points) == 60
    for point in points:
        filled, names = by_hand(RANGES, point)
        assert set(point) == names
        assert 1e-5 <= filled["lr"] <= 1e-1
        assert -1 <= filled["d"] <= 1
        assert filled["b"] in (-1, 0, 1)
        assert type(filled["b"]) is int


@given(
    discrete_documents.filter(lambda d: 1 < space.count(holes_of(d)) <= MOST),
    st.sampled_from(sorted(set(NNI_TUNERS) - SLOW)),
)
@settings(max_examples=60)
def test_any_space_can_be_said_in_nni_words(data, name):
    known = {key(point) for point in space.enumerate_points(holes_of(data))}
    found = proposals(name, data, 8)
    assert found
    assert all(key(point) in known for point in found)


def test_nni_grid_search_proposes_every_choice():
    data = {"a": {"choice": [1, {"choice": [2, {"choice": [3, 4]}]}]}, "b": {"choice": ["x", "y", "z"]}}
    known = {key(point) for point in space.enumerate_points(holes_of(data))}
    assert {key(point) for point in proposals("grid", data, 500)} == known


@pytest.mark.parametrize("name", slowly(NNI_TUNERS))
def test_nni_proposes_the_same_for_the_same_seed_and_results(name):
    assert proposals(name, RANGES, 50) == proposals(name, RANGES, 50)


def propose(name: str, seed: int = 0, scores: int = 0, number: int = 14) -> list[str]:
    """Propose on the shipped space; a candidate's score follows from its identity, and some diverge."""
    changes = [f"search.tuner={name}", f"search.tuner_seed={seed}", f"search.trials={number}"]
    proposer = TunerProposer(load_search(CONV3X3, changes))
    identities = []
    for _ in range(number):
        candidate = proposer.propose()
        identities.append(candidate.identity)
        score = random.Random(f"{scores}{candidate.identity}").random()
        proposer.tell(candidate, None if score < 0.2 else (score,))
    assert proposer.tuner is not None
    return identities


@pytest.mark.parametrize("name", slowly(TUNERS))
def test_proposers_with_the_same_seed_and_results_propose_the_same(name):
    number = 6 if name in SLOW else 14
    first = propose(name, number=number)
    assert propose(name, number=number) == first
    assert len(set(first)) == number
    assert name == "grid" or propose(name, seed=1, number=number) != first  # grid has no seed


@pytest.mark.parametrize("name", ["tpe", "evolution"])
def test_tuners_that_learn_propose_by_the_results(name):
    assert propose(name, scores=1, number=30) != propose(name, scores=0, number=30)


def test_a_proposer_ends_when_the_space_is_used_up():
    study = {
        "name": "small",
        "model": {"stem": {"patch": {"choice": [4, 5, 8]}}, "body": {"dim": 24, "depth": 1, "heads": 3}},
        "data": {"name": "digits", "image_size": 32},
    }
    for name in sorted(set(TUNERS) - SLOW):
        proposer = TunerProposer(load_search(study, [f"search.tuner={name}"]))
        found = [proposer.propose() for _ in range(3)]
        assert {c.assignments[0]["model.stem.patch"] for c in found if c} == {4, 8}
        assert found[2] is None
