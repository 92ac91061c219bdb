"""A stem on a timm ViT that exists: what changes, what must not, and what timm and torch still do with the model."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models._features import FeatureGetterNet
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from timm.optim import create_optimizer_v2
from torch import nn

import stemlab
from stemlab import SpecError
from stemlab.builders import Stem

STEM = {"channels": [8, 16, 24], "norm": "batch", "act": "relu"}
FINE = {"channels": [8, 16], "norm": "layer", "act": "gelu"}
SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}


def vit(kind=VisionTransformer, **options):
    return kind(**{**SIZES, **options})


def eva(**options):
    return vit(Eva, use_rot_pos_emb=True, **options)


KINDS = {
    "vit": vit,
    "vit-avg": lambda **o: vit(class_token=False, global_pool="avg", **o),
    "clip": lambda **o: vit(pre_norm=True, **o),
    "siglip": lambda **o: vit(class_token=False, global_pool="map", **o),
    "dinov2": lambda **o: vit(reg_tokens=4, no_embed_class=True, init_values=1e-5, **o),
    "deit3": lambda **o: vit(no_embed_class=True, init_values=1e-6, **o),
    "no-positions": lambda **o: vit(pos_embed="none", **o),
    "distilled": lambda **o: vit(VisionTransformerDistilled, **o),
    "eva02": lambda **o: eva(ref_feat_shape=(4, 4), swiglu_mlp=True, **o),
    "dinov3": lambda **o: eva(use_abs_pos_emb=False, rope_type="dinov3", num_reg_tokens=4, **o),
    "mixed": lambda **o: eva(rope_type="mixed", **o),
    "mrope": lambda **o: eva(rope_type="mrope", rope_mrope_section=(2, 3, 3), **o),
}
every_kind = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in KINDS.items()])


def others(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights that a stem has no business with."""
    state = model.state_dict().items()
    return {k: v.clone() for k, v in state if not k.startswith("patch_embed.") and k != "pos_embed"}


# What changes, and what does not.


@every_kind
@pytest.mark.parametrize(("stem", "grid"), [(STEM, 4), (FINE, 8), ({"patch": 16}, 2)], ids=["same", "finer", "coarser"])
def test_all_else_stays_and_the_grid_is_the_stems(make, stem, grid):
    model = make().eval()
    before, positions = others(model), getattr(model, "pos_embed", None)
    assert stemlab.attach(stem, model) is model
    assert isinstance(model.patch_embed, Stem)
    after = others(model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert model(x).shape == (2, 5)
        tokens, maps = model.forward_intermediates(x)
        assert torch.equal(tokens, model.forward_features(x))
        flat = model.forward_intermediates(x, output_fmt="NLC", intermediates_only=True)
        torch.testing.assert_close(model.forward_head(tokens), model(x))
    assert tokens.shape == (2, grid**2 + model.num_prefix_tokens, 32)
    assert [tuple(m.shape) for m in maps] == [(2, 32, grid, grid)] * 2
    assert torch.equal(maps[0].flatten(2).transpose(1, 2), flat[0])
    assert [info["reduction"] for info in model.feature_info] == [32 // grid] * 2
    if positions is not None:
        prefix = 0 if model.no_embed_class else model.num_prefix_tokens
        assert torch.equal(model.pos_embed[:, :prefix], positions[:, :prefix])
        assert model.pos_embed.shape[1] == grid**2 + prefix
        if grid == 4:
            assert torch.equal(model.pos_embed, positions)


@every_kind
def test_the_patch_embedding_that_was_there_gives_the_same_outputs(make):
    """Our patchify with the old weights in it: nothing but the stem has changed."""
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        weights, expected = model.patch_embed.proj.state_dict(), model(x)
        stemlab.attach({"patch": 8, "bias": "bias" in weights}, model)
        model.patch_embed.layers[0].load_state_dict(weights)
        torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("make", [vit, eva])
def test_positions_are_resampled_as_timm_does(make):
    ours, theirs = make(), make()
    theirs.load_state_dict(ours.state_dict())
    theirs.set_input_size(patch_size=4)
    stemlab.attach(FINE, ours)
    assert torch.equal(ours.pos_embed, theirs.pos_embed)
    assert torch.equal(ours.rope.get_embed(), theirs.rope.get_embed()) if make is eva else True


@pytest.mark.parametrize("make", [vit, eva])
def test_an_image_size_of_ones_own(make):
    model = stemlab.attach({"patch": [8, 12]}, make(), image_size=(40, 48)).eval()
    assert model.patch_embed.grid_size == (5, 4)
    assert model(torch.randn(1, 3, 40, 48)).shape == (1, 5)


def test_the_seed_fixes_the_stem_wherever_the_model_is():
    before = torch.get_rng_state()
    one = stemlab.attach(STEM, vit(), seed=3).patch_embed.state_dict()
    half = stemlab.attach(STEM, vit().to(torch.bfloat16), seed=3).patch_embed.state_dict()
    other = stemlab.attach(STEM, vit(), seed=4).patch_embed.state_dict()
    assert all(torch.equal(v.to(half[k].dtype), half[k]) for k, v in one.items())
    assert not torch.equal(one["layers.conv1.weight"], other["layers.conv1.weight"])
    torch.set_rng_state(before)
    stemlab.attach(STEM, (model := vit()), seed=3)
    expected = torch.rand(1)
    torch.set_rng_state(before)
    vit()
    assert torch.equal(torch.rand(1), expected), "the global generator has moved"
    assert model.patch_embed.layers[0].weight.requires_grad


@pytest.mark.parametrize("make", [vit, eva])
def test_device_dtype_mode_and_options_are_kept(make):
    model = stemlab.attach(STEM, make(in_chans=1, dynamic_img_size=True).to("meta", torch.float16).eval())
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert {p.dtype for p in model.patch_embed.parameters()} == {torch.float16}
    assert not any(m.training for m in model.modules())
    assert model.patch_embed.layers[0].in_channels == 1
    assert (model.patch_embed.output_fmt.value, model.patch_embed.strict_img_size) == ("NHWC", False)
    frozen = make(dynamic_img_pad=True).requires_grad_(False)
    stemlab.attach(FINE, frozen)
    assert frozen.patch_embed.dynamic_img_pad
    assert {n.split(".")[0] for n, p in frozen.named_parameters() if p.requires_grad} == {"patch_embed"}


def test_a_stem_on_a_stem():
    model = stemlab.attach(STEM, vit(dynamic_img_size=True, in_chans=2))
    stemlab.attach(stemlab.StemSpec.model_validate(FINE), model)
    assert model.eval()(torch.randn(1, 2, 32, 48)).shape == (1, 5)
    assert stemlab.attach("vit_c_1gf", vit(img_size=64)).patch_embed.grid_size == (4, 4)


@pytest.mark.parametrize(
    "name",
    [
        "vit_small_patch14_reg4_dinov2", "vit_base_patch16_siglip_224", "eva02_tiny_patch14_224",
        "deit3_small_patch16_224", "vit_base_patch16_clip_224", "vit_small_patch16_dinov3",
        "vit_pe_core_tiny_patch16_384", "deit_tiny_distilled_patch16_224",
    ],
)  # fmt: skip
def test_models_by_timms_names(name):
    model = timm.create_model(name, img_size=224, depth=1)
    size = model.pretrained_cfg["input_size"]
    stemlab.attach("vit_c_4gf", model, seed=0)
    assert model.patch_embed.grid_size == (14, 14)
    assert model.pretrained_cfg["input_size"] == size
    assert model.pretrained_cfg["first_conv"] == "patch_embed.layers.conv1"
    with torch.no_grad():
        assert torch.isfinite(model.eval().forward_features(torch.randn(1, 3, 224, 224))).all()


# What is refused.


@pytest.mark.parametrize(
    ("stem", "model", "message"),
    [
        (STEM, nn.Linear(2, 2), r"model \(a Linear\).*expected one of timm's plain ViTs"),
        (STEM, "vit_small_patch16_224", r"model \(a str\)"),
        (STEM, "resnet10t", r"model \(a ResNet\)"),
        (STEM, "swin_tiny_patch4_window7_224", r"model \(a SwinTransformer\)"),
        (STEM, "vit_tiny_r_s16_p8_224", "patch embedding is no HybridEmbed"),
        ({"patch": 12}, vit, r"stride \(=12\) does not divide the image's height \(=32\).*works: 24 or 36"),
        ({"patch": 64}, vit, r"does not divide.*nearest that works: 64"),
        ({**STEM, "project": False}, eva, r"ends with 24 channels but the body's dim is 32"),
        ({"layers": [{"op": "conv", "channels": "dim", "kernel": 64, "padding": 0}]}, vit, "leaves nothing of a map"),
        ({"channels": [8], "norm": "bach"}, vit, "did you mean 'batch'"),
        ("vit_c_4fg", vit, "did you mean 'vit_c_4gf'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(stem, model, message):
    named = isinstance(model, str) and "small" not in model
    model = timm.create_model(model) if named else model() if model in (vit, eva) else model
    before = list(model.state_dict()) if isinstance(model, nn.Module) else None
    with pytest.raises(SpecError, match=message):
        stemlab.attach(stem, model)
    assert before is None or list(model.state_dict()) == before


def test_a_wrapped_model_is_told_from_its_inside():
    model = timm.create_model("vit_tiny_patch16_224", features_only=True)
    with pytest.raises(SpecError, match="before it is wrapped for features_only"):
        stemlab.attach("vit_c_1gf", model)


# What timm does with the model.


@every_kind
@pytest.mark.parametrize("stem", [STEM, FINE], ids=["same", "finer"])
def test_set_input_size(make, stem):
    model = stemlab.attach(stem, make()).eval()
    model.set_input_size((48, 64))
    x = torch.randn(1, 3, 48, 64)
    grid = (48 // model.patch_embed.feat_ratio(), 64 // model.patch_embed.feat_ratio())
    assert model(x).shape == (1, 5)
    assert model.forward_intermediates(x, intermediates_only=True)[0].shape == (1, 32, *grid)
    with pytest.raises(AssertionError, match="does not fit the model's 48x64"):
        model(torch.randn(1, 3, 32, 32))


@every_kind
def test_dynamic_image_sizes(make):
    fixed, model = make(), make(dynamic_img_size=True)
    model.load_state_dict(fixed.state_dict())
    fixed, model = (stemlab.attach(FINE, m, seed=0).eval() for m in (fixed, model))
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(x), fixed(x))
        for size in [(32, 48), (16, 16)]:
            grid = (size[0] // 4, size[1] // 4)
            assert model(torch.randn(1, 3, *size)).shape == (1, 5)
            assert model.forward_intermediates(torch.randn(1, 3, *size))[1][0].shape == (1, 32, *grid)


@pytest.mark.parametrize("make", [vit, eva])
def test_gradient_checkpointing_gives_the_same_gradients(make):
    model, x = stemlab.attach(STEM, make()), torch.randn(2, 3, 32, 32)

    def gradients(enable):
        model.zero_grad()
        model.set_grad_checkpointing(enable)
        model(x).square().sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters()}

    torch.testing.assert_close(gradients(True), gradients(False))


@every_kind
def test_parameter_groups(make):
    """timm's layer decay gives the stem the smallest rate, that of layer 0, and no decay to its vectors."""
    model = stemlab.attach(STEM, make())
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5)
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    scales = {name: groups[id(p)]["lr_scale"] for name, p in model.named_parameters()}
    stem = {name: scale for name, scale in scales.items() if name.startswith("patch_embed.")}
    assert len(stem) == 3 + 6 + 2
    assert set(stem.values()) == {min(scales.values())}
    assert scales["blocks.0.norm1.weight"] > min(scales.values())
    for name, p in model.patch_embed.named_parameters():
        assert groups[id(p)]["weight_decay"] == (0.1 if p.ndim > 1 else 0.0), name
    assert "pos_embed" in model.no_weight_decay()


@every_kind
def test_classifier_and_state(make):
    model = stemlab.attach(STEM, make()).eval()
    x = torch.randn(1, 3, 32, 32)
    twin = stemlab.attach(STEM, make()).eval()
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(x), model(x))
    heads = model.get_classifier()
    assert all(head.out_features == 5 for head in (heads if isinstance(heads, tuple) else (heads,)))
    model.reset_classifier(7)
    assert model(x).shape == (1, 7)


@pytest.mark.parametrize("make", [vit, eva])
def test_features_only(make):
    model = stemlab.attach(FINE, make()).eval()
    getter = FeatureGetterNet(model, out_indices=[0])
    assert getter.feature_info.reduction() == [4]
    (feature,) = getter(torch.randn(1, 3, 32, 32))
    assert feature.shape == (1, 32, 8, 8)
    assert len(model.blocks) == 1


# What torch does with the model.

eager = pytest.mark.parametrize(
    "make", [vit, eva, lambda: vit(dynamic_img_size=True), lambda: eva(dynamic_img_size=True)],
    ids=["vit", "eva", "dynamic-vit", "dynamic-eva"],
)  # fmt: skip


@eager
def test_compile_in_one_graph(make):
    """By torch's eager backend: inductor's code generation takes most of a minute, and is not ours."""
    model, x = stemlab.attach(STEM, make()).eval(), torch.randn(2, 3, 32, 32)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x), model(x))
        maps = torch.compile(model.forward_intermediates, fullgraph=True, backend="eager")
        torch.testing.assert_close(maps(x)[1], model.forward_intermediates(x)[1])


@eager
def test_export_with_a_dynamic_batch(make):
    model, x = stemlab.attach(STEM, make()).eval(), torch.randn(2, 3, 32, 32)
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 32, 32)
        torch.testing.assert_close(exported.module()(x), model(x))


@pytest.mark.parametrize("make", [vit, eva])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_jit_trace(make):
    model = stemlab.attach(STEM, make()).eval()
    traced = torch.jit.trace(model, torch.randn(1, 3, 32, 32))
    x = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(traced(x), model(x))
