"""Bodies: timm's plain ViTs by name, their fields, exact costs, and the same outputs as timm's own."""

from __future__ import annotations

import importlib.util
import json

import huggingface_hub.constants
import pytest
import timm
import torch
from conftest import REPOSITORY
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import save_file
from test_specs import accepts
from timm.layers import Attention, AttentionPoolLatent, AttentionRope
from timm.models.eva import EvaAttention
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import stemlab
from stemlab import BodySpec, InfeasibleError, ModelSpec, SpecError, StemlabError
from stemlab.body_costing import body_parts
from stemlab.builders import build_model
from stemlab.running import load_search
from stemlab.space import enumerate_points
from stemlab.spec.bodies import TABLE, table
from stemlab.spec.schema import json_schema

NAMES = list(table()["bodies"])
REFUSED = list(table()["refused"])
DIMENSIONS = {"dim", "depth", "heads", "mlp_ratio", "layer_scale", "norm_eps"}


def tool():
    spec = importlib.util.spec_from_file_location("timm_bodies", REPOSITORY / "tools" / "timm_bodies.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def timms(name: str, device="meta", **changes):
    with torch.device(device):
        return timm.create_model(name, num_classes=1000, **changes).eval()


def on_its_patches(model: nn.Module, body, **fields) -> ModelSpec:
    """A body of ours on the patchify stem and the image size of a model of timm's."""
    patch, grid = model.patch_embed.patch_size, model.patch_embed.grid_size
    size = [count * side for count, side in zip(grid, patch, strict=True)]
    return ModelSpec.model_validate({"stem": {"patch": list(patch)}, "body": body, "image_size": size, **fields})


def built(spec: ModelSpec, device="meta"):
    with torch.device(device):
        return build_model(spec).eval()


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The tensors of everything but the stem."""
    named = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    return {name: tuple(v.shape) for name, v in named.items() if not name.startswith("patch_embed.")}


def params(model: nn.Module) -> int:
    return sum(p.numel() for name, p in model.named_parameters() if not name.startswith("patch_embed."))


def torch_flops(model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, *model.patch_embed.img_size, device="meta"))
    return counter.get_total_flops()


# The table.


def test_the_table_is_what_the_installed_timm_says():
    module, kept = tool(), table()
    found = module.table()
    if found["timm"] == kept["timm"]:
        assert TABLE.read_text(encoding="utf-8") == module.text(found)
    for name in kept["bodies"].keys() & found["bodies"].keys():
        assert kept["bodies"][name] == json.loads(json.dumps(found["bodies"][name])), name


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_a_canonical_body(name):
    body = BodySpec.model_validate(name)
    assert BodySpec.model_validate(body.canonical()) == body == BodySpec.model_validate(f"{name}.any_tag")
    assert BodySpec.model_validate({"timm": name}) == body


def test_a_plain_name_has_the_canonical_form_it_always_had():
    always = {"dim", "depth", "heads", "mlp_ratio", "qkv_bias", "class_token", "pool"}
    for name in ("vit_base_patch16", "vit_tiny_patch8_64", "deit_large_patch16_224", "deit_small_patch16_224"):
        assert BodySpec.model_validate(name).canonical().keys() == always
    assert BodySpec.model_validate("vit_huge_patch14_224") == BodySpec.model_validate("vit_huge_patch16_224")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_plain_vit_is_refused_with_the_reason(name):
    with pytest.raises(ValidationError, match=f"{name}.* is not a plain ViT: its (blocks|attention)"):
        BodySpec.model_validate(name)


# Costs. Blocks of timm's plain ViTs are alike, so one of them tells; two names are checked as deep as they are.


@pytest.mark.parametrize("name", NAMES)
def test_params_are_those_of_timms_own_model(name):
    theirs = timms(name, depth=1)
    spec = on_its_patches(theirs, {"timm": name, "depth": 1})
    assert stemlab.cost(spec).body.params == params(theirs)


@pytest.mark.parametrize("name", ["vit_base_patch14_reg4_dinov2", "vit_small_plus_patch16_dinov3"])
def test_params_at_full_depth(name):
    theirs = timms(name)
    assert stemlab.cost(on_its_patches(theirs, name)).body.params == params(theirs)


def representatives() -> list[str]:
    """One name for every combination of options."""
    found = {}
    for name, fields in table()["bodies"].items():
        options = {key: value for key, value in fields.items() if key not in DIMENSIONS}
        found.setdefault((json.dumps(options, sort_keys=True), "layer_scale" in fields), name)
    return list(found.values())


@pytest.mark.parametrize("name", representatives())
def test_our_model_is_timms_with_the_flops_that_torch_counts(name):
    theirs = timms(name, depth=1)
    spec = on_its_patches(theirs, {"timm": name, "depth": 1})
    ours = built(spec)
    assert type(ours) is type(theirs)
    if theirs.patch_embed.flatten:  # or else timm computes rotary embeddings when they are needed
        assert shapes(ours) == shapes(theirs)
    cost = stemlab.cost(spec)
    assert sum(p.numel() for p in ours.parameters()) == cost.params
    assert torch_flops(ours) == 2 * cost.flops


FAMILIES = [
    "vit_small_patch16_224",
    "deit3_small_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "vit_base_patch32_clip_quickgelu_224",
    "vit_base_patch16_siglip_224",
    "vit_base_patch16_rpn_224",
    "vit_small_patch14_reg4_dinov2",
    "vit_giant_patch14_reg4_dinov2",
    "aimv2_large_patch14_224",
    "test_vit3",
    "vit_small_plus_patch16_dinov3_qkvb",
    "vit_pe_core_tiny_patch16_384",
    "vit_small_patch16_rope_mixed_ape_224",
    "eva02_tiny_patch14_224",
    "eva02_base_patch16_clip_224",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_outputs_are_timms_own(name):
    """A narrow body of two blocks, with timm's weights (all of them random) copied into ours."""
    own = BodySpec.model_validate(name)
    small = {"dim": 48, "depth": 2, "heads": 4, "mlp_ratio": 2.0}
    theirs = timm.create_model(
        name, embed_dim=48, depth=2, num_heads=4, num_classes=7, dynamic_img_size=False,
        mlp_ratio=4.0 if own.mlp == "swiglu_packed" and not own.is_eva else 2.0,
    ).eval()  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    spec = on_its_patches(theirs, {"timm": name, **small}, classes=7)
    ours = built(spec, "cpu")
    weights = {key: v for key, v in theirs.state_dict().items() if not key.startswith("patch_embed.")}
    missing, unexpected = ours.load_state_dict(weights, strict=False)
    assert unexpected == []
    assert all(key.startswith("patch_embed.") for key in missing)
    ours.patch_embed = theirs.patch_embed  # timm's may have a norm, which is the stem's business
    images = torch.randn(2, 3, *theirs.patch_embed.img_size, generator=generator)
    with torch.no_grad():
        expected = theirs(images)
        assert expected.std() > 1e-3
        torch.testing.assert_close(ours(images), expected, rtol=1e-5, atol=1e-5)


def test_a_stem_of_another_grid_gets_embeddings_of_its_own():
    """Without padding the stem has fewer tokens than the image has patches; Eva must count the stem's."""
    layers = [{"op": "conv", "channels": "dim", "kernel": 5, "stride": 4, "padding": 0, "bias": True}]
    body = {"timm": "eva02_tiny_patch14_224", "dim": 24, "depth": 1, "heads": 3}
    spec = ModelSpec.model_validate({"stem": {"layers": layers}, "body": body, "image_size": [32, 40], "classes": 5})
    model = built(spec, "cpu")
    assert model.patch_embed.grid_size == (7, 9)
    assert model(torch.zeros(1, 3, 32, 40)).shape == (1, 5)
    assert sum(p.numel() for p in model.parameters()) == stemlab.cost(spec).params
    model.set_input_size((48, 48))
    assert model(torch.zeros(1, 3, 48, 48)).shape == (1, 5)
    dynamic = build_model(spec, dynamic_img_size=True).eval()
    assert dynamic(torch.zeros(1, 3, 64, 32)).shape == (1, 5)


# All fields, in all combinations that timm can build.

OPTIONS = {
    "qkv_bias": st.booleans(),
    "pool_heads": st.sampled_from([1, 2]),
    "pool_mlp_ratio": st.sampled_from([1, 3.5]),
    "pool_include_prefix": st.booleans(),
    "distilled": st.booleans(),
    "reg_tokens": st.integers(0, 3),
    "pos_embed": st.sampled_from(["all", "patches", "none"]),
    "norm": st.sampled_from(["layer", "rms"]),
    "norm_eps": st.sampled_from([1e-6, 1e-5]),
    **{name: st.booleans() for name in ("pre_norm", "post_norm", "final_norm", "fc_norm")},
    **{name: st.booleans() for name in ("qk_norm", "scale_attn_norm", "scale_mlp_norm")},
    **{name: st.booleans() for name in ("k_bias", "proj_bias", "qkv_fused")},
    "layer_scale": st.sampled_from([1e-5, 1]),
    "mlp": st.sampled_from(["mlp", "swiglu", "swiglu_packed"]),
    "act": st.sampled_from(["gelu", "gelu_tanh", "quick_gelu", "silu", "relu"]),
    "rope": st.fixed_dictionaries(
        {"kind": st.sampled_from(["axial", "mixed", "dinov3"])},
        optional={"temperature": st.sampled_from([10, 100.0]), "grid_indexing": st.sampled_from(["ij", "xy"])},
    ),
}


@st.composite
def body_options(draw) -> dict:
    """A valid body with any of the options; those that contradict one another are dropped, last first."""
    token = draw(st.booleans())
    body = {
        "dim": 24,
        "depth": draw(st.integers(1, 3)),
        "heads": draw(st.sampled_from([1, 2, 3])),
        "class_token": token,
    }
    body |= {
        "mlp_ratio": draw(st.sampled_from([1, 2.5, 4])),
        "pool": draw(st.sampled_from(["avg", "map"] + ["token"] * token)),
    }
    for name in draw(st.permutations(list(OPTIONS)))[: draw(st.integers(1, 10))]:
        try:
            tried = {**body, name: draw(OPTIONS[name])}
            BodySpec.model_validate(tried)
        except ValidationError:
            continue
        body = tried
    try:
        BodySpec.model_validate(body)
    except ValidationError:
        assume(False)
    return body


def model_of(body, **fields) -> ModelSpec:
    document = {"stem": {"patch": 8}, "body": body, "image_size": [16, 24], "classes": 5, **fields}
    return ModelSpec.model_validate(document)


def outputs(model: nn.Module) -> dict[str, int]:
    """Count what the body's modules give, and additions of trained biases, whenever the model is called."""
    found = {"activations": 0, "bias_adds": 0}

    def linear(module, _, output):
        found["activations"] += output.numel()
        found["bias_adds"] += output.numel() if module.bias is not None else 0

    def attention(module, arguments, _):
        _, tokens, dim = arguments[0].shape
        queries = 1 if isinstance(module, AttentionPoolLatent) else tokens
        found["activations"] += module.num_heads * queries * tokens + queries * dim
        if getattr(module, "q_bias", None) is not None:  # Eva applies the weights of fused queries, keys, values itself
            found["activations"] += 3 * tokens * dim
            found["bias_adds"] += 2 * tokens * dim

    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(linear)
        elif isinstance(module, (Attention, AttentionRope, EvaAttention, AttentionPoolLatent)):
            module.register_forward_hook(attention)
    return found


@given(body_options())
@settings(max_examples=60)
def test_counts_are_those_of_the_built_model(document):
    spec = model_of(document)
    cost = stemlab.cost(spec)
    model = built(spec)
    assert sum(p.numel() for p in model.parameters()) == cost.params
    found = outputs(model)
    assert torch_flops(model) == 2 * cost.flops
    assert found == {"activations": cost.body.activations, "bias_adds": cost.body.bias_adds}


@given(body_options(), st.integers(1, 40), st.integers(1, 9), st.integers(1, 50))
@settings(max_examples=100)
def test_every_count_is_linear_in_depth_and_in_the_mlps_width(document, patches, classes, width):
    body = BodySpec.model_validate(document)
    one, two, three = (body_parts(body, factor * width, patches, classes) for factor in (1, 2, 3))
    for first, second, third in zip(one, two, three, strict=True):
        assert [b - a for a, b in zip(first, second, strict=True)] == [
            b - a for a, b in zip(second, third, strict=True)
        ]
    costs = [stemlab.cost(model_of({**document, "depth": depth})).total for depth in (1, 2, 3)]
    assert [b - a for a, b in zip(*costs[:2], strict=True)] == [b - a for a, b in zip(*costs[1:], strict=True)]


@given(body_options(), st.sampled_from(["flops", "params", "activations"]))
@settings(max_examples=60)
def test_no_mlp_width_is_nearer_with_any_option(document, metric):
    """The attention pooling's MLP, too, is as wide as the blocks'."""
    document = {**document, "mlp_ratio": 4}
    rule = {"reference": {"patch": 4}, "metric": metric, "adjust": ["mlp"], "tolerance": 0.999}
    spec = model_of(document, match=rule)
    try:
        result = stemlab.match(spec)
    except InfeasibleError:
        return
    reference = stemlab.cost(model_of(document, stem={"patch": 4}))
    target = getattr(reference, metric)
    hidden = spec.body.mlp_hidden
    widths = range(-(-hidden // 16) * 8, 2 * hidden + 1, 8)
    costs = [stemlab.cost(model_of({**document, "mlp_ratio": width / 24})) for width in widths]
    assert abs(result.error) == min(abs(getattr(cost, metric) - target) / target for cost in costs)
    assert result.cost == stemlab.cost(result.model)


@given(body_options())
@settings(max_examples=60)
def test_bodies_with_options_round_trip_and_differ(document):
    body = BodySpec.model_validate(document)
    assert BodySpec.model_validate(body.canonical()) == body
    plain = BodySpec(dim=24, depth=body.depth, heads=body.heads)
    assert (body.digest == plain.digest) == (body == plain)


def test_an_option_written_as_it_is_by_default_changes_nothing():
    plain = {"dim": 24, "depth": 1, "heads": 3}
    usual = {name: field.default for name, field in BodySpec.model_fields.items() if not field.is_required()}
    written = BodySpec.model_validate({**plain, **usual, "fc_norm": False})
    assert written.digest == BodySpec.model_validate(plain).digest
    averaged = BodySpec.model_validate({**plain, "class_token": False})
    assert averaged.replace(fc_norm=True, pos_embed="patches").digest == averaged.digest


# Changed, and wrong.


def test_fields_of_a_named_body_can_be_changed():
    named = BodySpec.model_validate("vit_base_patch16_clip_224")
    changed = BodySpec.model_validate({"timm": "vit_base_patch16_clip_224", "depth": 6})
    assert changed == named.replace(depth=6)
    assert "timm" not in changed.canonical()
    assert (
        BodySpec.model_validate({"timm": "vit_small_patch16_rope_224", "rope": None, "pos_embed": "all"}).rope is None
    )
    assert BodySpec.model_validate({"timm": "vit_small_patch16_224", "class_token": False}).pool == "avg"


SMALL = {"dim": 48, "depth": 2, "heads": 4}
ROPE = {"rope": {"kind": "axial"}}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("vit_smal_patch16_224", "did you mean 'vit_small_patch16_224'"),
        ("vit_base_patch14_dinov22", "did you mean 'vit_base_patch14_dinov2'"),
        ("", "unknown body ''"),
        ({"timm": 3}, "body.timm: expected the name"),
        ({"timm": "resnet50"}, "unknown body 'resnet50'"),
        ({"timm": "vit_base_patch16_xp_224", "depth": 3}, "is not a plain ViT: its blocks have branches side by side"),
        ({**SMALL, "regtokens": 4}, "unknown field 'regtokens'.*did you mean 'reg_tokens'"),
        ({**SMALL, "reg_tokens": -1}, "body.reg_tokens: must be greater than or equal to 0"),
        ({**SMALL, "act": "gelutanh"}, "one of gelu, gelu_tanh.*did you mean 'gelu_tanh'"),
        ({**SMALL, "mlp": "swiglu", "act": "relu"}, "body.act: act: relu does not go with mlp: swiglu"),
        ({**SMALL, "pool_heads": 2}, "body.pool_heads: pool_heads: 2 needs pool: map"),
        ({**SMALL, "pool": "map", "pool_heads": 2}, "pool_heads: 2 is only in timm's models with rope"),
        ({**SMALL, **ROPE, "pool": "map", "pool_include_prefix": True, "pool_heads": 5}, "must divide dim"),
        ({**SMALL, **ROPE, "pool": "map"}, "pool: map here needs pool_include_prefix"),
        ({**SMALL, **ROPE, "proj_bias": False}, "proj_bias: false is not in timm's models with rope"),
        ({**SMALL, **ROPE, "dim": 24}, "rope: .* needs dim / heads divisible by 4"),
        ({**SMALL, "rope": {"kind": "mixed", "rotate_half": True}}, "rotate_half does not go with kind: mixed"),
        ({**SMALL, "rope": {"kind": "dinov3", "reference_grid": 7}}, "reference_grid needs kind: axial"),
        ({**SMALL, "rope": {"temprature": 7}}, "did you mean 'temperature'"),
        ({**SMALL, "qkv_fused": False}, "qkv_fused: false is only in timm's models with rope"),
        ({**SMALL, "k_bias": False, "qkv_bias": False}, "k_bias: false says nothing"),
        ({**SMALL, "distilled": True, "class_token": False}, "distilled: true needs pool: token"),
        ({**SMALL, "distilled": True, "reg_tokens": 1}, "distilled: true does not go with reg_tokens"),
        ({**SMALL, "final_norm": False, "fc_norm": True}, "fc_norm: true is about a final norm"),
        (
            {**SMALL, "k_bias": False, "post_norm": True, "layer_scale": 1},
            "layer_scale: 1.0 does not go with post_norm",
        ),
        (
            {**SMALL, "pool_include_prefix": True, "pool": "avg", "class_token": False},
            "needs a class token or registers",
        ),
        ({**SMALL, "pretrained": True}, "pretrained: true needs timm: NAME"),
        ({**SMALL, "pretrained": "vit_smal_patch16_224"}, "did you mean 'vit_small_patch16_224'"),
        ({**SMALL, "pretrained": "vit_tiny_patch99_224"}, "timm has no model 'vit_tiny_patch99_224'"),
        ({"timm": "vit_tiny_patch16_224", "depth": 6, "pretrained": True}, "depth is 6 here but 12 in the pretrained"),
        ({"timm": "vit_tiny_patch16_224", "act": "relu", "pretrained": True}, "act is 'relu' here but 'gelu'"),
    ],
)
def test_wrong_bodies(body, says):
    with pytest.raises(SpecError, match=says) as error:
        stemlab.load({"stem": {"patch": 8}, "body": body, "image_size": 32})
    assert "\n" not in str(error.value)


NAMED = [
    "vit_small_patch16_224",
    {"timm": "vit_small_patch16_224", "depth": 6},
    {"timm": "test_vit", "pretrained": True},
    {"pretrained": "test_vit.r160_in1k"},
    {**SMALL, **ROPE, "layer_scale": 0.1},
]


@pytest.mark.parametrize("body", NAMED)
def test_the_schema_knows_names_and_changes(body):
    document = {"stem": {"patch": 8}, "body": body, "image_size": 32}
    ModelSpec.model_validate(document)
    schema = json_schema("model")
    assert accepts(schema, document, schema)
    assert not accepts(schema, {**document, "body": {"timm": 3}}, schema)
    assert not accepts(schema, {**document, "body": {**SMALL, "ropes": 3}}, schema)


def test_a_body_may_be_searched():
    body = {"timm": {"choice": ["vit_tiny_patch16_224", "vit_tiny_patch16_dinov3_qkvb"]}, "depth": 2}
    study = {"name": "bodies", "model": {"stem": {"patch": 8}, "body": body}, "data": {"name": "digits"}}
    candidates = load_search({**study, "train": {"epochs": 2}})
    found = [candidates.make(point).model.body for point in enumerate_points(candidates.holes)]
    assert [(b.depth, b.is_eva) for b in found] == [(2, False), (2, True)]


# Pretrained weights.

TAGGED = "test_vit.r160_in1k"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's cache with the weights of timm's smallest ViT, all random, and no network."""
    snapshot = tmp_path / "models--timm--test_vit.r160_in1k" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    model = timm.create_model("test_vit", num_classes=1000, dynamic_img_size=False).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    save_file(model.state_dict(), snapshot / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return model


def test_pretrained_weights_are_loaded_but_for_the_stem(hub, tmp_path):
    spec = stemlab.load({"stem": {"patch": 16}, "body": {"timm": TAGGED, "pretrained": True}, "image_size": 160})
    assert spec.body.pretrained == TAGGED
    assert spec.body == BodySpec.model_validate({"pretrained": TAGGED})
    assert spec.digest != stemlab.load({**spec.canonical(), "body": "test_vit"}).digest
    model = stemlab.build(spec, seed=0).eval()
    ours, theirs = model.state_dict(), hub.state_dict()
    for name, value in theirs.items():
        assert name.startswith("patch_embed.") or torch.equal(ours[name], value), name
    stem = stemlab.build(spec.replace(body="test_vit"), seed=0).patch_embed.state_dict()
    assert all(torch.equal(value, ours[f"patch_embed.{name}"]) for name, value in stem.items())
    model.patch_embed = hub.patch_embed
    images = torch.randn(1, 3, 160, 160)
    torch.testing.assert_close(model(images), hub(images), rtol=1e-5, atol=1e-5)
    # Another grid, and other classes.
    other = stemlab.build(spec.replace(stem={"channels": [8, 8]}, image_size=64, classes=3), seed=0)
    assert other.pos_embed.shape == (1, 1 + 16 * 16, 64)
    assert torch.equal(other.state_dict()["blocks.3.mlp.fc1.weight"], theirs["blocks.3.mlp.fc1.weight"])
    assert other(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_a_saved_model_needs_no_hub(hub, tmp_path, monkeypatch):
    from stemlab.builders.hub import save

    spec = stemlab.load({"stem": {"patch": 16}, "body": {"pretrained": TAGGED}, "image_size": 160})
    model = stemlab.build(spec)
    save(model, spec, tmp_path / "saved")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "nothing"))
    again = stemlab.build(tmp_path / "saved")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    with pytest.raises(StemlabError, match=rf"pretrained {TAGGED}: its weights cannot be fetched"):
        stemlab.build(spec)


def test_weights_that_timm_has_not(hub):
    spec = {"stem": {"patch": 16}, "body": {"timm": "test_vit.nowhere", "pretrained": True}, "image_size": 160}
    with pytest.raises(SpecError, match=r"pretrained test_vit.nowhere: Invalid pretrained tag"):
        stemlab.build(spec)


def test_a_match_that_changes_the_body_leaves_no_weights_to_load():
    stem = {"channels": [32, 64], "kernels": 3, "strides": [4, 4]}
    model = {"stem": stem, "body": {"pretrained": TAGGED}, "match": {"reference": {"patch": 8}}, "image_size": 160}
    with pytest.raises(InfeasibleError, match=r"pretrained weights \(test_vit.r160_in1k\) are for depth 6"):
        stemlab.match(model)
    same = {**model, "match": {"reference": stem}}
    assert stemlab.match(same).model.body.pretrained == TAGGED
