"""Fusing: what is left computes the same, and what can go is gone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from layer_lists import FACTS, convert, expected_output
from strategies import model_documents
from torch import nn

import stemlab
from stemlab import ModelSpec, SpecError, StemSpec
from stemlab.builders import Stem
from stemlab.modules.parallel import Parallel


def trained(spec: StemSpec, size, dim: int, in_channels: int = 3, seed: int = 0) -> Stem:
    """A stem whose norms are far from where they begin."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        stem = Stem(spec, img_size=size, embed_dim=dim, in_chans=in_channels)
        for module in stem.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)
                if module.weight is not None:
                    nn.init.normal_(module.weight, 1, 0.3)
                if module.bias is not None:
                    nn.init.normal_(module.bias)
    return stem.eval()


def assert_same(stem: Stem, fused: Stem) -> None:
    x = torch.randn(2, stem.in_chans, *stem.img_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = stem(x), fused(x)
    assert (expected - found).abs().max() <= 1e-4 * expected.abs().max().clamp(min=1)


def left(stem: nn.Module, kind: type) -> int:
    return sum(isinstance(module, kind) for module in stem.modules())


@pytest.mark.zoo
@pytest.mark.parametrize("name", [name for name in FACTS if FACTS[name]["params"] < 2e6])
def test_published_stems_stay_what_they_compute(name):
    channels, height, width = FACTS[name]["measured_at"]
    size = (height // 2, width // 2) if height % 64 == 0 else (height, width)
    spec = convert(FACTS[name]["layers"])
    stem = trained(spec, size, expected_output(FACTS[name])[0], channels)
    assert_same(stem, stemlab.fuse(stem, measure=False))


@pytest.mark.parametrize(
    "name", ["vit_c_4gf", "levit_384", "scaled_relu_deit_s", "fastvit_t8_train", "visformer_small"]
)
def test_nothing_is_left_of_norms_and_branches(name):
    stem = trained(convert(FACTS[name]["layers"]), 64, expected_output(FACTS[name])[0])
    assert left(stem, nn.BatchNorm2d) > 0
    fused = stemlab.fuse(stem, measure=False)
    assert left(fused, nn.BatchNorm2d) == left(fused, Parallel) == 0
    assert fused.saving.params[1] < fused.saving.params[0]


@given(model_documents(), st.integers(0, 3))
def test_any_stem_stays_what_it_computes(document, seed):
    model = ModelSpec.model_validate(document)
    stem = trained(model.stem, model.image_size, model.body.dim, seed=seed)
    assert_same(stem, stemlab.fuse(stem, measure=False))


def block(*branches, merge="sum"):
    return {"op": "parallel", "branches": list(branches), "merge": merge}


def conv(kernel, **fields):
    return {"op": "conv", "channels": 12, "kernel": kernel, **fields}


BN = {"op": "norm", "kind": "batch"}


@pytest.mark.parametrize(
    "branches",
    [
        ([], [BN], [conv(1), BN], [conv(3), BN], [conv(5, groups=3), BN]),
        ([], [conv(3, groups="depthwise")], [conv(1, groups=4)], [conv([3, 5], groups=6)]),
        ([conv(3, stride=2)], [conv(1, stride=2, padding=0), BN], [conv(5, stride=2, bias=True)]),
        ([conv(3, dilation=2)], [conv(1)], [conv(5, dilation=2)]),
        ([conv(3, padding="tf_same", stride=2)], [conv(3, padding="tf_same", stride=2), BN]),
        ([conv(3, padding="tf_same")], [conv(1)]),
        ([conv(2, padding=[0, 1, 0, 1])], [conv(1)], [conv(3)]),
        ([conv(3, standardize={"gain": True})], [conv(1, standardize=True), BN]),
        ([block([], [conv(3), BN]), BN], []),
    ],
)
def test_a_sum_of_convolutions_is_one_convolution(branches):
    spec = StemSpec.model_validate({"layers": [conv(1), block(*branches), BN]})
    stem = trained(spec, (18, 22), 12)
    fused = stemlab.fuse(stem, measure=False)
    assert [layer.op for layer in fused.spec.layers] == ["conv", "conv"]
    assert_same(stem, fused)
    fused.set_input_size((31, 17))
    stem.set_input_size((31, 17))
    assert_same(stem, fused)


@pytest.mark.parametrize(
    "layer",
    [
        block([conv(3)], [conv(3, dilation=2)]),  # taps that no one kernel holds
        block([conv(3, padding="tf_same", stride=2)], [conv(1, padding="tf_same", stride=2)]),
        block([], [conv(3), {"op": "act", "kind": "relu"}]),
        block([], [conv(1), {"op": "pool", "kind": "global"}]),  # a broadcast sum
        block([conv(1)], [conv(1)], merge="mul"),
    ],
)
def test_what_is_no_sum_of_convolutions_stays(layer):
    spec = StemSpec.model_validate({"layers": [conv(1), layer]})
    stem = trained(spec, (17, 23), 12)
    fused = stemlab.fuse(stem, measure=False)
    assert left(fused, Parallel) == 1
    assert_same(stem, fused)


def test_a_norm_before_a_padded_convolution_stays():
    """The border is zero after the norm, so the norm's shift cannot go through it; without padding it can."""
    relu = {"op": "act", "kind": "relu"}
    for padding, norms in ((1, 1), (0, 0)):
        spec = StemSpec.model_validate({"layers": [conv(3), relu, BN, conv(3, padding=padding, groups=2)]})
        stem = trained(spec, (9, 9), 12)
        fused = stemlab.fuse(stem, measure=False)
        assert left(fused, nn.BatchNorm2d) == norms
        assert_same(stem, fused)


def test_the_stem_itself_is_not_touched_and_the_saving_is_told():
    stem = trained(StemSpec.model_validate("vit_c_1gf"), 64, 192).train()
    before = {name: value.clone() for name, value in stem.state_dict().items()}
    fused = stemlab.fuse(stem)
    assert stem.training
    assert not fused.training
    assert all(torch.equal(value, before[name]) for name, value in stem.state_dict().items())
    assert fused.saving.layers == (13, 9)
    assert all(0 < each < 1000 for each in fused.saving.latency)
    assert "layers 13 -> 9" in str(fused.saving)
    assert "ms (" in str(fused.saving)


def test_a_fused_stem_works_in_its_model():
    model = stemlab.build("vit_c_1gf", seed=0).eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = model(x)
        model.patch_embed = stemlab.fuse(model.patch_embed, measure=False)
        assert (model(x) - expected).abs().max() < 1e-4


def test_only_a_stem_can_be_fused():
    with pytest.raises(SpecError, match=r"model\.patch_embed.*got Conv2d"):
        stemlab.fuse(nn.Conv2d(3, 8, 3))
