"""Closed-form costs: the papers' numbers, and what torch itself counts."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from counting import outputs
from fvcore.nn import FlopCountAnalysis
from hypothesis import given, settings
from strategies import models
from timm.layers import Attention
from torch.utils.flop_counter import FlopCounterMode

import stemlab
from stemlab import costing, zoo
from stemlab.builders import build_model
from stemlab.spec.base import pair
from stemlab.spec.quantity import Quantity

# pycls's own totals (its flops are multiply-adds plus one for every biased output), then the multiply-adds and bias
# additions apart, at 224 x 224 with 1000 classes; arXiv 2106.14881.
PUBLISHED = {
    "vit_p_1gf": (1083059944, 4830376, 5520748, 1079390208, 3669736),
    "vit_c_1gf": (1079227240, 4567936, 5628385, 1075860096, 3367144),
    "vit_p_4gf": (3909048808, 18507112, 11040496, 3901710336, 7338472),
    "vit_c_4gf": (3965674216, 17754136, 11255770, 3958940928, 6733288),
    "vit_p_18gf": (17580319720, 86567656, 23895544, 17563828224, 16491496),
    "vit_c_18gf": (17726621416, 81573160, 24024268, 17711491584, 15129832),
    "vit_p_36gf": (35997187048, 178364392, 37136840, 35971567616, 25619432),
    "vit_c_36gf": (35025829864, 167796008, 36606008, 35002025984, 23803880),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_totals(name):
    cost = stemlab.cost(name)
    found = (cost.flops + cost.bias_adds, cost.params, cost.activations, cost.flops, cost.bias_adds)
    assert found == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_zoo_states_the_published_totals(name):
    _, params, activations, flops, bias_adds = PUBLISHED[name]
    golden = {"flops": flops, "bias_adds": bias_adds, "params": params, "activations": activations}
    assert zoo.get(name).golden_model == golden


def test_scaled_relu_stem():
    """3Conv+3BN+3ReLU+1Proj on DeiT-S: 1,656,768 parameters, 1,351,139,328 multiply-adds; arXiv 2109.03810."""
    convs = [{"op": "conv", "channels": 64, "kernel": k, "stride": s} for k, s in ((7, 2), (3, 1), (3, 1))]
    proj = {"op": "conv", "channels": "dim", "kernel": 8, "stride": 8, "padding": 0, "bias": True}
    for norm, act, params in (("batch", "relu", 1656768), ("none", "relu", 1656384), ("batch", "none", 1656768)):
        layers = [*({**conv, "norm": norm, "act": act} for conv in convs), proj]
        cost = stemlab.cost({"stem": {"layers": layers}, "body": "deit_small_patch16_224"})
        assert (cost.stem.params, cost.stem.flops) == (params, 1351139328)


def built(spec, device="meta"):
    with torch.device(device):
        return build_model(spec).eval()


def image(spec, device="meta"):
    return torch.zeros(1, 3, *pair(spec.image_size), device=device)


@given(models(match=None))
@settings(max_examples=40)
def test_params_are_those_of_the_built_model(spec):
    try:
        cost = stemlab.cost(spec)
    except stemlab.InfeasibleError:
        return
    model = built(spec)
    stem = sum(p.numel() for p in model.patch_embed.parameters())
    assert stem == cost.stem.params
    assert sum(p.numel() for p in model.parameters()) == cost.params


@given(models(least_grid=2))
@settings(max_examples=40)
def test_flops_are_half_of_what_torch_counts(spec):
    cost = costing.count(spec)
    with FlopCounterMode(display=False) as counter:
        built(spec)(image(spec))
    assert counter.get_total_flops() == 2 * cost.flops
    with FlopCounterMode(display=False) as counter:
        built(spec).patch_embed(image(spec))
    assert counter.get_total_flops() == 2 * cost.stem.flops


@given(models(least_grid=2))
@settings(max_examples=40)
def test_activations_and_bias_adds_are_those_of_the_modules(spec):
    cost = costing.count(spec)
    assert outputs(built(spec).patch_embed, image(spec)) == (cost.stem.activations, cost.stem.bias_adds)
    model = built(spec)
    tokens = model.pos_embed.shape[1]
    attention = sum(
        module.num_heads * tokens**2 + tokens * spec.body.dim
        for module in model.modules()
        if isinstance(module, Attention)
    )
    elements, biased = outputs(model, image(spec))
    assert (elements + attention, biased) == (cost.activations, cost.bias_adds)


@given(models(least_grid=2))
@settings(max_examples=12)
def test_fvcore_agrees(spec):
    model = built(spec, "cpu")
    for block in model.blocks:
        block.attn.fused_attn = False
    analysis = FlopCountAnalysis(model, image(spec, "cpu"))
    by_operator = analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    assert sum(by_operator[name] for name in ("conv", "linear", "matmul")) == costing.count(spec).flops


@given(models())
@settings(max_examples=100)
def test_stem_and_body_are_the_whole(spec):
    cost = costing.count(spec)
    flat = cost.as_dict()
    for name in ("flops", "params", "activations"):
        assert flat[name] == flat[f"stem_{name}"] + flat[f"body_{name}"] == getattr(cost, name)
    assert cost.bias_adds == cost.stem.bias_adds + cost.body.bias_adds
    assert 0 <= cost.stem_flops_share <= 1
    assert math.isclose(cost.stem_flops_share * cost.flops, cost.stem.flops)
    assert all(isinstance(value, int) and value >= 0 for name, value in flat.items() if name != "stem_flops_share")


def test_the_flat_form_has_what_a_constraint_may_name():
    assert {*stemlab.cost("vit_c_1gf").as_dict(), "match_error"} == set(get_args(Quantity))
