"""Matching: the papers' rule, exact errors, and nothing nearer left out."""

from __future__ import annotations

import re

import pytest
from conftest import CONV3X3
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import models

import stemlab
from stemlab import InfeasibleError, ModelSpec, costing, space
from stemlab.running import load_search

METRICS = ("flops", "params", "activations")


def reference_cost(spec: ModelSpec) -> int:
    reference = spec.replace(stem=spec.match.reference, match=None)
    return getattr(costing.count(reference), spec.match.metric)


def error_of(spec: ModelSpec, **body) -> float:
    """The relative error of a model with another body, from whole counts only."""
    model = spec.replace(body=spec.body.replace(**body), match=None)
    target = reference_cost(spec)
    return (getattr(costing.count(model), spec.match.metric) - target) / target


def feasible(spec: ModelSpec):
    try:
        return stemlab.match(spec)
    except InfeasibleError:
        return None


@pytest.mark.parametrize(
    ("size", "before", "after"), [("1gf", 12, 11), ("4gf", 12, 11), ("18gf", 12, 11), ("36gf", 14, 13)]
)
def test_the_papers_rule_drops_one_block(size, before, after):
    published = stemlab.load(f"vit_p_{size}")
    assert published.body.depth == before
    spec = published.replace(
        stem=f"vit_c_{size}", match={"reference": {"patch": 16}, "adjust": ["depth"], "tolerance": 0.05}
    )
    result = stemlab.match(spec)
    assert result.model == stemlab.load(f"vit_c_{size}")
    assert result.model.body.depth == after
    assert 0 < abs(result.error) <= 0.05


def test_every_point_of_the_shipped_space_matches_closely():
    candidates = load_search(CONV3X3, ["constraints={}"])
    points = list(space.enumerate_points(candidates.holes))
    errors = [candidates.make(point).matched.error for point in points]
    assert len(errors) == 181
    assert max(map(abs, errors)) <= 0.005


@given(models(match=True))
@settings(max_examples=200)
def test_the_error_is_true_and_within_the_tolerance_or_stated(spec):
    try:
        result = stemlab.match(spec)
    except InfeasibleError as error:
        text = str(error)
        found = re.search(r"the nearest \(depth (\d+), MLP width (\d+)\) is ([+-][\d.]+)% off", text)
        assert found, text
        depth, hidden, percent = int(found[1]), int(found[2]), float(found[3])
        true = error_of(spec, depth=depth, mlp_ratio=hidden / spec.body.dim)
        assert abs(true * 100 - percent) < 0.0051
        assert abs(true) > spec.match.tolerance
        return
    assert result.metric == spec.match.metric
    assert result.target == reference_cost(spec)
    assert result.cost == costing.count(result.model)
    assert result.error == (getattr(result.cost, result.metric) - result.target) / result.target
    assert abs(result.error) <= spec.match.tolerance
    assert result.model.match is None
    assert result.model.stem == spec.stem
    assert ModelSpec.model_validate(result.model.canonical()) == result.model


@given(models(match=True))
@settings(max_examples=200)
def test_only_what_may_be_adjusted_is(spec):
    result = feasible(spec)
    assume(result is not None)
    before, after = spec.body, result.model.body
    if "depth" not in spec.match.adjust:
        assert after.depth == before.depth
    if "mlp" not in spec.match.adjust:
        assert after.mlp_ratio == before.mlp_ratio
    if after.mlp_hidden != before.mlp_hidden:
        assert after.mlp_hidden % 8 == 0
        assert 0.5 <= after.mlp_hidden / before.mlp_hidden <= 2
    untouched = {"depth": before.depth, "mlp_ratio": before.mlp_ratio}
    assert after.replace(**untouched) == before
    assert after.depth >= 1


@given(models(), st.sampled_from(METRICS), st.sampled_from([("depth",), ("mlp",), ("depth", "mlp")]))
@settings(max_examples=60)
def test_a_stem_matched_against_itself_changes_nothing(spec, metric, adjust):
    rule = {"reference": spec.stem, "metric": metric, "adjust": adjust, "tolerance": 1e-9}
    result = stemlab.match(spec.replace(match=rule))
    assert result.model == spec
    assert result.error == 0


@given(models())
@settings(max_examples=20)
def test_without_a_rule_nothing_is_matched(spec):
    result = stemlab.match(spec)
    assert (result.model, result.error, result.target) == (spec, None, None)
    assert result.cost == stemlab.cost(spec) == costing.count(spec)


@given(models(match=True))
@settings(max_examples=60)
def test_no_depth_is_nearer(spec):
    rule = spec.match.model_copy(update={"adjust": ("depth",), "tolerance": 0.999})
    spec = spec.replace(match=rule)
    result = feasible(spec)
    assume(result is not None and spec.body.depth < 20)
    depths = range(1, 16 * spec.body.depth + 1)  # what is deeper than sixteen times is no match
    assert abs(result.error) == min(abs(error_of(spec, depth=depth)) for depth in depths)


@given(models(match=True))
@settings(max_examples=40)
def test_no_mlp_width_is_nearer(spec):
    """Of the widths that are multiples of 8, from half to twice the body's own."""
    rule = spec.match.model_copy(update={"adjust": ("mlp",), "tolerance": 0.999})
    spec = spec.replace(match=rule)
    result = feasible(spec)
    assume(result is not None)
    hidden = spec.body.mlp_hidden
    widths = [hidden, *(w for w in range(8, 2 * hidden + 1, 8) if 2 * w >= hidden)]
    nearest = min(abs(error_of(spec, mlp_ratio=width / spec.body.dim)) for width in widths)
    assert abs(result.error) == nearest


@pytest.mark.parametrize("metric", METRICS)
def test_both_adjustments_come_close_by_every_metric(metric):
    spec = stemlab.load("vit_p_4gf").replace(
        stem="vit_c_4gf", match={"reference": {"patch": 16}, "metric": metric, "tolerance": 0.005}
    )
    result = stemlab.match(spec)
    assert abs(error_of(spec, depth=result.model.body.depth, mlp_ratio=result.model.body.mlp_ratio)) <= 0.005


def test_an_impossible_match_says_how_far_off_it_is():
    stem = {"channels": [256, 512], "kernels": 7, "strides": [2, 8]}
    body = {"dim": 24, "depth": 2, "heads": 3}
    spec = {"stem": stem, "body": body, "match": {"reference": {"patch": 16}}, "image_size": 64}
    with pytest.raises(InfeasibleError, match=r"nearest \(depth 1, MLP width \d+\) is \+[\d.,]+% off: the stem alone"):
        stemlab.match(spec)
