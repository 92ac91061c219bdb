"""The T2T plug-in: outside the core, found by its entry point, exact in counts and function."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from stemlab import StemSpec, build_stem

T2T = {
    "layers": [
        {"op": "soft_split", "kernel": 7, "stride": 4, "padding": 2},
        {"op": "token_transformer", "channels": 64},
        {"op": "soft_split", "kernel": 3, "stride": 2, "padding": 1},
        {"op": "token_transformer", "channels": 64},
        {"op": "soft_split", "kernel": 3, "stride": 2, "padding": 1},
        {"op": "conv", "channels": "dim", "kernel": 1, "bias": True},
    ]
}


# Counts of the original module at 224 pixels (yitu-opensource/T2T-ViT, models/t2t_vit.py): linear layers and matmuls.
@pytest.mark.zoo
@pytest.mark.parametrize(
    ("dim", "params", "linear"),
    [(256, 313190, 252284928), (384, 387046, 266735616), (448, 423974, 273960960), (512, 460902, 281186304)],
)
def test_t2t_has_the_counts_of_the_original(dim, params, linear):
    trace = StemSpec.model_validate(T2T).trace(224, 224, dim)
    assert trace.end == (dim, 14, 14)
    assert trace.stride == (16, 16)
    assert trace.counts.params == params
    assert trace.counts.flops == linear + 1337491456


def test_the_module_costs_what_the_spec_says():
    stem = StemSpec.model_validate(T2T)
    built, trace = build_stem(stem, 24, (33, 47)).eval(), stem.trace(33, 47, 24)
    with FlopCounterMode(display=False) as counter:
        out = built.layers(torch.randn(1, 3, 33, 47))
    assert tuple(out.shape[1:]) == trace.end
    assert counter.get_total_flops() == 2 * trace.counts.flops
    assert sum(p.numel() for p in built.parameters()) == trace.counts.params


def test_a_token_transformer_is_attention_with_the_values_as_skip():
    torch.manual_seed(0)
    ours = build_stem(StemSpec.model_validate({"layers": [{"op": "token_transformer", "channels": 8}]}), 8, (3, 5))
    module = ours.layers[0]
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 3, 3, 5)
    tokens = x.flatten(2).mT
    q, k, v = (F.layer_norm(tokens, (3,), module.norm1.weight, module.norm1.bias) @ module.qkv.weight.T).split(8, -1)
    y = v + module.proj(torch.softmax(q @ k.mT / 3**0.5, dim=-1) @ v)
    y = y + module.mlp.fc2(F.gelu(module.mlp.fc1(module.norm2(y))))
    assert torch.allclose(module(x), y.mT.unflatten(2, (3, 5)), atol=1e-5)


def test_a_soft_split_is_an_unfold():
    layer = {"op": "soft_split", "kernel": [3, 2], "stride": [2, 1], "padding": 1}
    built = build_stem(StemSpec.model_validate({"layers": [layer]}), 18, (7, 6))
    x = torch.randn(2, 3, 7, 6)
    assert torch.equal(built.layers(x).flatten(2), F.unfold(x, (3, 2), padding=1, stride=(2, 1)))
