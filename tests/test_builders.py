"""The modules: shapes as traced, timm's conventions, weights as published, and whatever torch does with a module."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from strategies import models
from strategies_layers import layer_lists, numbers
from timm.layers import PatchEmbed
from torch import nn

import stemlab
from stemlab import ModelSpec, SpecError, StemSpec
from stemlab.builders import Stem, build_model, build_stem
from stemlab.builders.hub import save
from stemlab.modules.patchify import Patchify
from stemlab.modules.scaled_relu import ScaledReLU
from stemlab.spec.base import pair
from stemlab.spec.layers import ShapeError

CONV = {"channels": [8, 16, 24], "kernels": 3, "strides": 2, "norm": "batch", "act": "relu"}
BODY = {"dim": 24, "depth": 2, "heads": 3}


def small(stem=CONV, size=32, **body) -> ModelSpec:
    document = {"stem": stem, "body": {**BODY, **body}, "image_size": size, "classes": 10}
    return ModelSpec.model_validate(document)


# Shapes.


@given(models())
@settings(max_examples=60)
def test_models_give_the_traced_shapes(spec):
    model = build_model(spec).eval()
    height, width = pair(spec.image_size)
    x = torch.randn(2, 3, height, width)
    end = spec.stem.trace(height, width, spec.body.dim)[-1].after
    with torch.no_grad():
        assert model(x).shape == (2, spec.classes)
        assert model.patch_embed(x).shape == (2, end.height * end.width, spec.body.dim)
        assert model.patch_embed.layers(x).shape == (2, *end)
    prefix = 1 if spec.body.class_token else 0
    assert model.pos_embed.shape == (1, end.height * end.width + prefix, spec.body.dim)


@given(layer_lists(24), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=100)
def test_every_layer_gives_the_traced_shape_on_any_image(document, height, width):
    """Odd sizes too, which a whole model would refuse; where the trace says no, so does torch."""
    spec = StemSpec.model_validate(document)
    try:
        steps = spec.trace(height, width, 24)
    except ShapeError:
        return
    stem = Stem(spec, img_size=(height, width), embed_dim=24).eval()
    x = torch.randn(2, 3, height, width)
    with torch.no_grad():
        for step, module in zip(steps, stem.layers, strict=True):
            assert tuple(x.shape[1:]) == step.before
            x = module(x)
            assert tuple(x.shape[1:]) == step.after, step.layer


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", ["batch", "layer", "group", "instance", "rms"])
def test_a_norm_works_on_any_map_that_its_spec_allows(kind, affine):
    """Down to one position, if that is allowed."""
    norm = {"op": "norm", "kind": kind, "affine": affine, **({"groups": 4} if kind == "group" else {})}
    stem = {"layers": [{"op": "patchify", "patch": 16}, norm]}
    assert build_model(small(stem)).train()(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    try:
        spec = small(stem, size=16)
    except ValidationError:
        return
    assert build_model(spec).train()(torch.randn(2, 3, 16, 16)).shape == (2, 10)


@given(layer_lists(24))
@settings(max_examples=40)
def test_outputs_are_finite(document):
    spec = StemSpec.model_validate(document)
    size = max(spec.stride) * 2 + 16
    size -= size % math.lcm(*spec.stride)
    try:
        stem = Stem(spec, img_size=size, embed_dim=24).eval()
    except SpecError:
        return  # a layer does not fit the map that comes to it
    assert torch.isfinite(stem(torch.randn(1, 3, size, size))).all()


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ({"patch": 8}, (8, 8)),
        ({"patch": [4, 8]}, (4, 8)),
        ({**CONV, "norm": "none"}, (15, 15)),
        ({"channels": [4, 4, 4], "kernels": [7, 3, [3, 5]], "strides": [2, 1, 1]}, (15, 19)),
        (
            {"layers": [{"op": "conv", "channels": 4, "kernel": 3, "dilation": 2}, {"op": "patchify", "patch": 2}]},
            (6, 6),
        ),
        (
            {
                "layers": [
                    {"op": "conv", "channels": 6, "kernel": 3, "stride": 2, "padding": "tf_same", "groups": 3},
                    {"op": "pool", "kind": "avg", "kernel": 3, "stride": 2, "padding": 1},
                    {"op": "conv", "channels": "dim", "kernel": [1, 2], "padding": [0, 1, 0, 0]},
                ]
            },
            (7, 11),
        ),
    ],
)
def test_an_output_position_sees_its_receptive_field(stem, expected):
    """By the gradient of one output in the middle, all weights being positive."""
    spec = StemSpec.model_validate(stem)
    module = build_stem(spec, 24, 64, output_fmt="NCHW").eval()
    for parameter in module.parameters():
        nn.init.ones_(parameter)
    x = torch.ones(1, 3, 64, 64, requires_grad=True)
    y = module(x)
    y[0, :, y.shape[2] // 2, y.shape[3] // 2].sum().backward()
    rows, columns = (x.grad.abs().sum((0, 1, axis)).nonzero() for axis in (3, 2))
    seen = tuple(int(v.max() - v.min()) + 1 for v in (rows, columns))
    assert seen == spec.trace(64, 64, 24)[-1].receptive_field == expected


# timm's conventions.


@pytest.mark.parametrize("dynamic", [False, True])
def test_attributes_are_those_of_timm_patch_embed(dynamic):
    options = {"img_size": (32, 48), "patch_size": (8, 4), "embed_dim": 24, "dynamic_img_pad": dynamic}
    theirs = PatchEmbed(**options)
    ours = Stem(StemSpec.model_validate({"patch": [8, 4]}), **options)
    for name in ("img_size", "grid_size", "num_patches", "patch_size", "strict_img_size", "dynamic_img_pad"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.feat_ratio() == theirs.feat_ratio() == 8
    assert ours.feat_ratio(as_scalar=False) == theirs.feat_ratio(as_scalar=False) == (8, 4)
    for size in [(32, 48), (64, 64), (40, 44)] + ([(33, 47), (1, 1)] if dynamic else []):
        assert ours.dynamic_feat_size(size) == theirs.dynamic_feat_size(size)
    ours.set_input_size((64, 40))
    theirs.set_input_size((64, 40))
    assert (ours.img_size, ours.grid_size, ours.num_patches) == (theirs.img_size, theirs.grid_size, theirs.num_patches)


def test_patchify_is_timm_patch_embed():
    spec = StemSpec.model_validate({"patch": [8, 4]})
    ours, theirs = Stem(spec, img_size=32, embed_dim=24), PatchEmbed(img_size=32, patch_size=(8, 4), embed_dim=24)
    (patchify,) = ours.layers
    assert isinstance(patchify, Patchify)
    patchify.load_state_dict(theirs.proj.state_dict())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("output_fmt", [None, "NCHW", "NHWC", "NLC", "NCL"])
def test_output_formats_are_those_of_timm(output_fmt):
    spec = StemSpec.model_validate({"patch": [8, 4]})
    options = {"img_size": 32, "embed_dim": 24, "output_fmt": output_fmt}
    ours, theirs = Stem(spec, **options), PatchEmbed(patch_size=(8, 4), **options)
    ours.layers[0].load_state_dict(theirs.proj.state_dict())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(x), theirs(x))


def test_unflattened_output_is_the_map():
    assert Stem(StemSpec.model_validate(CONV), 32, embed_dim=24, flatten=False)(torch.randn(2, 3, 32, 32)).shape == (
        2, 24, 4, 4,
    )  # fmt: skip


def test_another_size_than_the_models_is_refused():
    model = build_model(small())
    with pytest.raises(AssertionError, match=r"40x32 does not fit the model's 32x32"):
        model(torch.randn(1, 3, 40, 32))


def test_set_input_size_moves_the_grid_and_the_position_embeddings():
    model = build_model(small()).eval()
    model.set_input_size(img_size=(48, 64))
    assert model.patch_embed.grid_size == (6, 8)
    assert model.pos_embed.shape == (1, 49, 24)
    assert model(torch.randn(1, 3, 48, 64)).shape == (1, 10)
    with pytest.raises(AssertionError):
        model(torch.randn(1, 3, 32, 32))
    with pytest.raises(SpecError, match="patch_size"):
        model.set_input_size(patch_size=4)


def test_dynamic_image_size_takes_other_sizes():
    spec = small()
    fixed, model = build_model(spec, seed=0).eval(), build_model(spec, seed=0, dynamic_img_size=True).eval()
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(model(x), fixed(x))
    for size in [(32, 64), (8, 8), (48, 40)]:
        assert model(torch.randn(1, 3, *size)).shape == (1, 10)
    with pytest.raises(AssertionError, match="33x32 is not divisible by the stem's stride 8x8"):
        model(torch.randn(1, 3, 33, 32))


def test_dynamic_image_padding_takes_any_size():
    model = build_model(small(), dynamic_img_size=True, dynamic_img_pad=True).eval()
    for height, width in [(32, 32), (33, 31), (5, 50)]:
        x = torch.randn(1, 3, height, width)
        padded = nn.functional.pad(x, (0, -width % 8, 0, -height % 8))
        torch.testing.assert_close(model(x), model(padded))
        assert model.patch_embed.dynamic_feat_size((height, width)) == (-(-height // 8), -(-width // 8))


@pytest.mark.parametrize("dynamic", [False, True])
def test_forward_intermediates(dynamic):
    model = build_model(small(size=(32, 40)), dynamic_img_size=dynamic).eval()
    x = torch.randn(2, 3, 32, 40)
    last, maps = model.forward_intermediates(x)
    assert [tuple(m.shape) for m in maps] == [(2, 24, 4, 5)] * 2
    torch.testing.assert_close(model.forward_head(last), model(x))
    assert model.feature_info[0]["reduction"] == 8


def test_options_reach_timm():
    model = build_model(small(), drop_path_rate=0.5, reg_tokens=2)
    assert model.num_prefix_tokens == 3
    assert model.blocks[1].drop_path1.drop_prob == 0.5


def test_the_matched_body_is_built():
    document = {"stem": CONV, "body": BODY, "match": {"reference": {"patch": 8}, "tolerance": 0.05}, "image_size": 32}
    spec = ModelSpec.model_validate(document)
    body = stemlab.match(spec).model.body
    model = build_model(spec)
    assert len(model.blocks) == body.depth
    assert model.blocks[0].mlp.fc1.out_features == body.mlp_hidden


@given(models(), st.integers(8, 400))
@settings(max_examples=25)
def test_timm_has_the_mlp_width_that_the_spec_says(spec, hidden):
    body = spec.body.replace(mlp_ratio=hidden / spec.body.dim, depth=1)
    with torch.device("meta"):
        model = build_model(spec.replace(body=body))
    assert model.blocks[0].mlp.fc1.out_features == body.mlp_hidden == hidden


def test_a_stem_of_another_width_is_refused():
    with pytest.raises(SpecError, match=r"24 channels but the body's dim is 48"):
        Stem(StemSpec.model_validate({**CONV, "project": False}), 32, embed_dim=48)


# Initial weights.


def check_std(weight: torch.Tensor, std: float) -> None:
    """Within five standard errors, and centred."""
    relative = 5 / math.sqrt(2 * weight.numel())
    assert abs(weight.std().item() / std - 1) < relative
    assert abs(weight.mean().item()) < 5 * std / math.sqrt(weight.numel())


def biases_are_zero(stem: nn.Module) -> bool:
    return all(not bool(p.any()) for name, p in stem.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("whole", [False, True])
def test_conv_stems_start_as_in_the_paper(whole):
    """3x3: std sqrt(2 / out_channels); last 1x1: std sqrt(1 / out_channels), zero bias; arXiv 2106.14881."""
    spec = small({"channels": [32, 64, 64], "kernels": 3, "strides": 2, "norm": "batch", "act": "relu"}, dim=48)
    stem = build_model(spec, seed=0).patch_embed if whole else build_stem(spec.stem, 48, 32)
    convs = [m for m in stem.modules() if isinstance(m, nn.Conv2d)]
    for conv in convs[:-1]:
        check_std(conv.weight.detach(), math.sqrt(2 / conv.out_channels))
    check_std(convs[-1].weight.detach(), math.sqrt(1 / 48))
    assert convs[-1].kernel_size == (1, 1)
    assert biases_are_zero(stem)


def test_convs_without_a_norm_start_by_fan_in():
    columns = {"channels": [32, 64], "kernels": [3, 5], "strides": 2, "bias": True, "order": "conv-act-norm"}
    stem = build_stem(StemSpec.model_validate({**columns, "act": "relu", "norm": ["none", "layer"]}), 48, 32)
    first, second, _ = (m for m in stem.modules() if isinstance(m, nn.Conv2d))
    check_std(first.weight.detach(), math.sqrt(2 / 27))
    check_std(second.weight.detach(), math.sqrt(2 / (32 * 25)))
    linear = build_stem(StemSpec.model_validate(columns), 48, 32)
    check_std(linear.layers.conv1.weight.detach(), math.sqrt(1 / 27))
    assert biases_are_zero(stem)
    assert biases_are_zero(linear)


@pytest.mark.parametrize("whole", [False, True])
def test_patchify_starts_as_in_the_paper(whole):
    """Truncated normal, std sqrt(1 / fan_in), zero bias; arXiv 2106.14881."""
    spec = small({"patch": 8}, dim=96)
    stem = build_model(spec, seed=0).patch_embed if whole else build_stem(spec.stem, 96, 32)
    check_std(stem.layers[0].weight.detach(), math.sqrt(1 / 192))
    assert biases_are_zero(stem)


def test_the_seed_fixes_the_weights_and_nothing_else():
    spec = small()
    before = torch.get_rng_state()
    one, same, other = build_model(spec, seed=3), build_model(spec, seed=3), build_model(spec, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert not torch.equal(one.patch_embed.layers.conv1.weight, other.patch_embed.layers.conv1.weight)
    assert not torch.equal(build_model(spec).pos_embed, build_model(spec).pos_embed)


# Scaled ReLU.


@given(numbers, numbers, st.booleans())
@settings(max_examples=30)
def test_scaled_relu_is_what_it_says(scale, shift, learn):
    layer = ScaledReLU(6, scale, shift, learn)
    x = torch.randn(2, 6, 5, 4)
    torch.testing.assert_close(layer(x), torch.relu(scale * x + shift))
    assert sum(p.numel() for p in layer.parameters()) == (12 if learn else 0)
    assert set(layer.state_dict()) == {"scale", "shift"}


def test_batch_norm_and_relu_in_eval_are_a_scaled_relu():
    norm, relu = nn.BatchNorm2d(6), ScaledReLU(6)
    for value in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(value)
    nn.init.uniform_(norm.running_var, 0.1, 3)
    norm.eval()
    with torch.no_grad():
        relu.scale.copy_(norm.weight / (norm.running_var + norm.eps).sqrt())
        relu.shift.copy_(norm.bias - norm.running_mean * relu.scale)
    x = torch.randn(2, 6, 5, 4)
    torch.testing.assert_close(relu(x), torch.relu(norm(x)))


@pytest.mark.parametrize("learn", [True, False])
def test_scaled_relu_in_a_stem_has_its_parameters_from_the_spec(learn):
    act = {"kind": "scaled_relu", "scale": 0.5, "shift": -0.25, "learn": learn}
    layer = build_stem(StemSpec.model_validate({**CONV, "act": act}), 24, 32).layers.act1
    assert layer.scale.tolist() == [0.5] * 8
    assert layer.shift.tolist() == [-0.25] * 8
    assert isinstance(layer.scale, nn.Parameter) is learn


@pytest.mark.parametrize("kind", ["leaky_relu", "prelu"])
def test_negative_slopes_come_from_the_spec(kind):
    act = {"kind": kind, "negative_slope": 0.125}
    layer = build_stem(StemSpec.model_validate({**CONV, "act": act}), 24, 32).layers.act1
    x = torch.tensor([-8.0, 8.0]).reshape(1, 1, 1, 2).expand(1, 8, 1, 2)
    assert layer(x)[0, 0, 0].tolist() == [-1.0, 8.0]


@pytest.mark.parametrize("kind", ["batch", "layer", "group", "instance", "rms"])
def test_eps_comes_from_the_spec(kind):
    norm = {"kind": kind, "eps": 0.5, **({"groups": 4} if kind == "group" else {})}
    layer = build_stem(StemSpec.model_validate({**CONV, "norm": norm}), 24, 32).layers.norm1
    assert layer.eps == 0.5


# What torch does with a module.


@given(models())
@settings(max_examples=12)
def test_weights_survive_a_folder(tmp_path_factory, spec):
    folder = tmp_path_factory.mktemp("model")
    model = build_model(spec, seed=1).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
    save(model, spec, folder)
    again = stemlab.build(folder).eval()
    x = torch.randn(2, 3, *pair(spec.image_size))
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    assert stemlab.load(folder) == spec


def test_weights_of_another_model_are_refused(tmp_path):
    save(build_model(small()), small(), tmp_path)
    save(build_model(small({"patch": 8})), small(), tmp_path)
    with pytest.raises(SpecError, match="not the weights of"):
        stemlab.build(tmp_path)


STEMS = [
    CONV,
    {"patch": 8},
    {
        "layers": [
            {"op": "conv", "channels": 6, "kernel": [3, 2], "stride": 2, "padding": "tf_same", "norm": "layer"},
            {"op": "pool", "kind": "max", "kernel": 3, "stride": 2, "padding": 1, "ceil": False},
            {"op": "act", "kind": "scaled_relu"},
            {"op": "patchify", "patch": 2},
        ]
    },
    {
        "layers": [
            {"op": "pad", "padding": 1, "value": 0.5},
            {"op": "conv", "channels": 6, "kernel": 3, "stride": 2, "padding": 0, "standardize": {"gain": True}},
            {"op": "act", "kind": "silu", "gain": 1.7},
            {
                "op": "parallel",
                "merge": "mul",
                "branches": [
                    [{"op": "parallel", "branches": [[], [{"op": "norm", "kind": "batch"}]], "split": ["dim/8", 3]}],
                    [{"op": "pool", "kind": "global"}, {"op": "conv", "channels": 6, "kernel": 1, "act": "sigmoid"}],
                ],
            },
            {"op": "pool", "kind": "avg", "kernel": 3, "stride": 2, "padding": "tf_same", "count_include_pad": False},
            {"op": "space_to_depth", "order": "w h c"},
            {"op": "conv", "channels": "dim", "kernel": 1},
        ]
    },
]


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_jit_trace(stem):
    model = build_model(small(stem)).eval()
    traced = torch.jit.trace(model, torch.randn(1, 3, 32, 32))
    x = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(traced(x), model(x))


@pytest.mark.parametrize("stem", STEMS)
def test_export(stem):
    model = build_model(small(stem, depth=1)).eval()
    x = torch.randn(2, 3, 32, 32)
    exported = torch.export.export(model, (x,))
    torch.testing.assert_close(exported.module()(x), model(x))


@pytest.mark.parametrize("stem", STEMS)
def test_gradient_checkpointing_gives_the_same_gradients(stem):
    x = torch.randn(2, 3, 32, 32)

    def gradients(checkpointing):
        model = build_model(small(stem), seed=0).train()
        model.set_grad_checkpointing(checkpointing)
        model(x).square().sum().backward()
        return {name: p.grad for name, p in model.named_parameters()}

    plain, checkpointed = gradients(False), gradients(True)
    assert all(g is not None for g in plain.values())
    torch.testing.assert_close(checkpointed, plain)


@pytest.mark.parametrize("stem", STEMS)
def test_bfloat16_and_channels_last(stem):
    model = build_model(small(stem)).eval().to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(x.to(memory_format=torch.channels_last)), model(x))
    assert model.to(torch.bfloat16)(x.to(torch.bfloat16)).dtype == torch.bfloat16
