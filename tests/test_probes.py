"""Probes: each against a plain computation of the same thing, and all of them against the run they must not change."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.func import functional_call
from torch.nn import functional as F

from stemlab.analysis.similarity import cka_between
from stemlab.builders import build_model
from stemlab.data.digits import load_digits
from stemlab.errors import SpecError
from stemlab.probes import Observer, attention, cka, hessian, tokens
from stemlab.probes.gradients import GradientNorms
from stemlab.probes.layers import stem_and_body
from stemlab.probes.spikes import DEVIATIONS, LEAST, RISE, WINDOW, LossSpikes
from stemlab.probes.updates import EVERY, UpdateRatios
from stemlab.records import TrialRecord
from stemlab.spec import ModelSpec, ProbeSpec, TrialSpec
from stemlab.train import run_trial

EVERYTHING = {
    **dict.fromkeys(("tokens", "gradients", "updates", "spikes", "attention", "hessian"), True),
    "cka": {"images": 16},
    "images": 40,
}
CONV = {"channels": [4, 8], "kernels": 3, "strides": [2, 4], "norm": "batch", "act": "relu"}
BODY = {"dim": 16, "depth": 2, "heads": 2, "mlp_ratio": 2}
BODIES = {
    "vit": BODY,
    "average": {**BODY, "class_token": False},
    "registers and norms": {**BODY, "reg_tokens": 3, "qk_norm": True, "layer_scale": 0.1},
    "map": {**BODY, "class_token": False, "pool": "map"},
    "axial rope": {**BODY, "rope": {"kind": "axial"}, "reg_tokens": 2},
    "mixed rope": {**BODY, "rope": {"kind": "mixed"}, "k_bias": False},
    "dinov3": {**BODY, "rope": {"kind": "dinov3"}, "qk_norm": True, "qkv_fused": False},
}


def trial(probes=None, body=BODY, stem=CONV, seed=0, size=32, **train):
    return TrialSpec.model_validate(
        {
            "model": {"stem": stem, "body": body, "image_size": size, "classes": 10},
            "data": {"name": "digits", "image_size": size},
            "train": {"epochs": 2, "warmup_epochs": 0, "batch_size": 128, **train},
            "seed": seed,
            "probes": probes,
        }
    )


def model_of(body=BODY, size=(16, 32), stem=CONV):
    spec = ModelSpec.model_validate({"stem": stem, "body": body, "image_size": size, "classes": 10})
    model = build_model(spec, seed=0)
    with torch.no_grad():  # far from the even attention and the like tokens of fresh weights
        for block in model.blocks:
            for name, value in block.attn.named_parameters():
                if name in ("qkv.weight", "q_proj.weight", "k_proj.weight"):
                    value.mul_(8)
    return model


@pytest.fixture
def images():
    return torch.randn(6, 3, 16, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def measured():
    return run_trial(trial(EVERYTHING), device="cpu")


# The section of a study.


def test_probes_are_part_of_a_trial_only_where_something_is_measured():
    plain = trial()
    assert "probes" not in plain.canonical()
    for nothing in ({}, {"tokens": False, "cka": False}, {"images": 8}):
        assert trial(nothing) == plain
        assert trial(nothing).digest == plain.digest
    assert trial({"tokens": True}).digest != plain.digest


def test_a_probe_that_is_off_leaves_the_digest():
    assert trial({"tokens": True, "hessian": False, "images": 256}).canonical()["probes"] == {"tokens": True}
    again = TrialSpec.model_validate(trial(EVERYTHING).canonical())
    assert again == trial(EVERYTHING)


@pytest.mark.parametrize(
    ("probes", "images"), [({"cka": True}, 64), ({"cka": True, "images": 10}, 10), ({"cka": {"images": 8}}, 8)]
)
def test_cka_may_be_a_flag(probes, images):
    assert ProbeSpec.model_validate(probes).cka.images == images


@pytest.mark.parametrize(
    ("probes", "message"),
    [
        ({"token": True}, "did you mean 'tokens'"),
        ({"cka": {"images": 9}, "images": 8}, r"cka.images \(=9\) must not exceed images \(=8\)"),
        ({"cka": {"images": 3}}, "greater than or equal to 4"),
        ({"tokens": 1}, "valid boolean"),
        ({"cka": True, "images": "many"}, "valid integer"),
    ],
)
def test_what_is_wrong_with_a_section_is_said(probes, message):
    with pytest.raises(ValidationError, match=message):
        trial(probes)


# Tokens.


@given(st.integers(2, 7), st.integers(1, 5), st.integers(0, 999))
def test_token_similarity_is_the_mean_over_all_pairs(count, width, seed):
    some = torch.randn(3, count, width, generator=torch.Generator().manual_seed(seed))
    some[0, 0] = 0
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    naive = [sum(float(F.cosine_similarity(x[i], x[j], dim=0)) for i, j in pairs) / len(pairs) for x in some]
    assert tokens.similarity(some).tolist() == pytest.approx(naive, abs=1e-5)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_tokens_are_those_of_timms_own_intermediates(body, images):
    model = model_of(body).eval()
    with torch.no_grad():
        stem = model.patch_embed(images)
        blocks = model.forward_intermediates(images, output_fmt="NLC", intermediates_only=True)
    expected = [float(tokens.similarity(layer).mean()) for layer in (stem, *blocks)]
    found = tokens.measure(model, images)
    assert found["tokens"]["layers"] == ["stem", "block 1", "block 2"]
    assert found["tokens"]["similarity"] == pytest.approx(expected, abs=1e-5)
    assert found["token_similarity"] == found["tokens"]["similarity"][-1]


def test_one_token_has_no_pairs():
    assert tokens.similarity(torch.ones(1, 1, 4)).isnan().all()


# Attention.


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_attention_distance_is_that_of_the_weights_timm_computes_unfused(body, images):
    model = model_of(body).eval()
    prefix = model.num_prefix_tokens
    found = attention.measure(model, images)["attention"]["distance"]
    rows, columns = model.patch_embed.grid_size
    places = [(8 * row, 8 * column) for row in range(rows) for column in range(columns)]
    seen = []
    for block in model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    with torch.no_grad():
        model(images)
    assert (rows, columns) == (2, 4)
    for weights, distances in zip(seen, found, strict=True):
        for head, distance in enumerate(distances):
            patches = weights[:, head, prefix:, prefix:]
            naive = [
                sum(float(w) * math.dist(places[q], places[k]) for k, w in enumerate(row)) / float(row.sum())
                for image in patches
                for q, row in enumerate(image)
            ]
            assert distance == pytest.approx(np.mean(naive), rel=1e-4)
    assert np.ptp(found) > 0.05


@pytest.mark.parametrize(("size", "stride"), [((8, 64), 8), ((64, 4), 4)])
def test_even_attention_along_a_line_has_the_known_distance(size, stride):
    model = model_of(size=size, stem={"patch": stride})
    for block in model.blocks:
        torch.nn.init.zeros_(block.attn.qkv.weight)
    found = attention.measure(model, torch.randn(2, 3, *size))
    count = max(size) // stride
    assert found["attention_distance"] == pytest.approx(stride * (count**2 - 1) / (3 * count), rel=1e-4)


def test_even_attention_on_a_large_square_looks_half_a_side_away():
    distances = attention.patch_distances((32, 32), (2, 2))
    assert float(distances.mean()) / 64 == pytest.approx(0.5214, abs=1e-3)


def test_a_patch_embedding_with_a_network_in_it_knows_its_stride():
    model = timm.create_model("vit_tiny_r_s16_p8_224", img_size=64, num_classes=10)
    found = attention.measure(model, torch.randn(2, 3, 64, 64))
    stride = model.patch_embed.feat_ratio()
    assert stride == 32
    assert 0 < found["attention_distance"] < math.hypot(stride, stride)


# CKA.


def _hsic(k, l):  # noqa: E741
    """The unbiased estimate as Song et al. 2012 print it."""
    count = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    ones = np.ones(count)
    cross = ones @ k @ ones * (ones @ l @ ones) / ((count - 1) * (count - 2))
    return (np.trace(k @ l) + cross - 2 / (count - 2) * (ones @ k @ l @ ones)) / (count * (count - 3))


def _features(seed, count, width):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def _cka(x, y):
    return float(cka.cka_matrix(torch.stack([cka.centred_gram(x), cka.centred_gram(y)]))[0, 1])


@given(st.integers(4, 12), st.integers(2, 6), st.integers(2, 6), st.integers(0, 999))
def test_cka_is_that_of_its_definition(count, width, other, seed):
    x, y = _features(seed, count, width), _features(seed + 1, count, other)
    k, l = (x @ x.T).numpy(), (y @ y.T).numpy()  # noqa: E741
    assert _cka(x, y) == pytest.approx(_hsic(k, l) / math.sqrt(_hsic(k, k) * _hsic(l, l)), abs=1e-6)


@given(st.integers(5, 12), st.integers(2, 6), st.floats(0.01, 100), st.integers(0, 999))
def test_cka_knows_neither_rotation_nor_scale_nor_origin(count, width, scale, seed):
    x, y = _features(seed, count, width), _features(seed + 1, count, width)
    turn = torch.linalg.qr(_features(seed + 2, width, width))[0]
    moved = scale * (x @ turn) + _features(seed + 3, 1, width)
    assert _cka(x, moved) == pytest.approx(1, abs=1e-6)
    assert _cka(moved, y) == pytest.approx(_cka(x, y), abs=1e-6)


def test_cka_of_many_random_features_is_not_biased_upwards():
    mean = np.mean([_cka(_features(s, 20, 500), _features(s + 100, 20, 500)) for s in range(30)])
    assert abs(mean) < 0.05  # the biased estimate gives 0.96


def test_models_are_compared_from_their_records_alone(measured):
    again = TrialRecord.from_dict(json.loads(measured.to_json()))
    own = cka_between(again, measured)
    assert list(own.index) == list(own.columns) == measured.probes["cka"]["layers"] == ["stem", "block 1", "block 2"]
    np.testing.assert_allclose(own, measured.probes["cka"]["matrix"], atol=2e-3)
    other = run_trial(trial(EVERYTHING, seed=1, stem={"patch": 16}, body={**BODY, "depth": 3, "dim": 8}), device="cpu")
    between = cka_between(measured, other)
    assert between.shape == (3, 4)
    assert between.to_numpy().max() < 0.999
    np.testing.assert_allclose(between.T, cka_between(other, measured))


def test_models_that_cannot_be_compared_are_refused(measured):
    with pytest.raises(SpecError, match="has no CKA: it was run without"):
        cka_between(measured, run_trial(trial(epochs=1), device="cpu"))
    fewer = run_trial(trial({"cka": {"images": 8}}, epochs=1), device="cpu")
    with pytest.raises(SpecError, match=r"different images: .*'images': 16.* and .*'images': 8"):
        cka_between(measured, fewer)


# The Hessian.


def test_the_top_eigenvalue_is_that_of_the_whole_hessian():
    body = {"dim": 4, "depth": 1, "heads": 1, "mlp_ratio": 1}
    model = model_of(body, size=16, stem={"channels": [2], "kernels": 3, "strides": 8, "norm": "batch", "act": "none"})
    model.head = torch.nn.Linear(4, 3)
    some, labels = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
    names, values = zip(*model.named_parameters(), strict=True)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for block in model.blocks:
        block.attn.fused_attn = False

    def loss(flat):
        parts = flat.split([v.numel() for v in values])
        filled = {n: p.view(v.shape) for n, p, v in zip(names, parts, values, strict=True)}
        logits = functional_call(model.train(), {**filled, **buffers}, (some,))
        return F.cross_entropy(logits, labels, label_smoothing=0.1)

    flat = torch.cat([v.detach().flatten() for v in values])
    eigenvalues = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))
    expected = float(eigenvalues[eigenvalues.abs().argmax()])

    found = hessian.measure(model, some, labels, 0.1)
    assert found["hessian_top"] == pytest.approx(expected, rel=0.05)
    assert found["hessian"]["converged"]
    model.train()
    value, _, _ = hessian.top_eigenvalue(loss(flat.requires_grad_()), [flat], iterations=500, tolerance=1e-7)
    assert value == pytest.approx(expected, rel=1e-3)


def test_the_top_eigenvalue_keeps_its_sign_and_knows_its_edge_cases():
    x = torch.ones(2, requires_grad=True)
    assert hessian.top_eigenvalue((torch.tensor([1.0, -3.0]) * x**2).sum(), [x])[0] == pytest.approx(-6, rel=0.02)
    assert hessian.top_eigenvalue((3 * x).sum(), [x]) == (0.0, 0, True)
    broken, _, converged = hessian.top_eigenvalue((x * math.inf).square().sum(), [x])
    assert not math.isfinite(broken)
    assert not converged


# Gradients and updates.


def _steps(model, part, count, probes, optimizer):
    """Train by hand; give the gradients of each step, and the weights before and behind it."""
    history = []
    for index in range(count):
        chosen = slice(16 * index, 16 * index + 16)
        loss = F.cross_entropy(model(part.images[chosen]), part.labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
        for probe in probes:
            probe.before_step(loss)
        optimizer.step()
        for probe in probes:
            probe.after_step()
        history.append((gradients, before, {name: p.detach().clone() for name, p in model.named_parameters()}))
    return history


def _norm(values, stem):
    return math.sqrt(sum(float((v.double() ** 2).sum()) for n, v in values.items() if n.startswith("patch_em") == stem))


def test_gradients_and_updates_are_those_of_a_hand_loop():
    model, part = model_of(size=32), load_digits(trial().data).train
    probes = [GradientNorms(model), UpdateRatios(model)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(2):
        history = _steps(model, part, EVERY + 2, probes, optimizer)
        row = {name: value for probe in probes for name, value in probe.columns().items()}
        for name, stem in (("stem", True), ("body", False)):
            norms = [_norm(gradients, stem) for gradients, _, _ in history]
            ratios = [
                _norm({n: behind[n] - before[n] for n in behind}, stem) / _norm(before, stem)
                for _, before, behind in history[::EVERY]
            ]
            assert len(ratios) == 2
            assert row[f"{name}_grad"] == pytest.approx(np.mean(norms), rel=1e-4)
            assert row[f"{name}_grad_max"] == pytest.approx(max(norms), rel=1e-4)
            assert row[f"{name}_update"] == pytest.approx(np.mean(ratios), rel=1e-4)


def test_gradients_are_taken_before_they_are_clipped():
    clipped = run_trial(trial({"gradients": True}, clip_grad=1e-3, epochs=1), device="cpu")
    assert clipped.probes["body_grad_max"] > 0.1


def test_stem_and_body_are_all_that_learns():
    model = model_of()
    model.pos_embed.requires_grad_(False)
    parts = stem_and_body(model)
    assert sum(p.numel() for p in parts["stem"]) == sum(p.numel() for p in model.patch_embed.parameters())
    assert sum(len(p) for p in parts.values()) == len(list(model.parameters())) - 1


# Spikes.


def test_a_spike_is_counted_once_and_where_it_is():
    calm = [2 - 0.01 * step + 0.05 * math.sin(step) for step in range(100)]
    probe = LossSpikes(10)
    assert probe.count(calm) == 0
    assert probe.count([5.0, *calm[-10:]]) == 1
    assert probe.count([math.nan, math.inf]) == 0
    assert probe.summary() == {"loss_spikes": 1}


def test_the_rule_has_two_limits_and_waits_for_enough_losses():
    rise = RISE * math.log(10)
    for above, spikes in ((0.99, 0), (1.01, 1)):
        assert LossSpikes(10).count([1.0] * LEAST + [1 + above * rise]) == spikes
        noisy = LossSpikes(10)
        noisy.recent.extend([1.0, 3.0] * (WINDOW // 2))
        assert noisy.count([2 + above * DEVIATIONS * 1.4826]) == spikes
    assert LossSpikes(10).count([1.0] * (LEAST - 1) + [9.0]) == 0


@given(st.lists(st.floats(0, 10), min_size=1, max_size=150))
def test_epochs_cut_the_losses_without_a_trace(losses):
    whole, cut = LossSpikes(10), LossSpikes(10)
    whole.count(losses)
    for start in range(0, len(losses), 7):
        for loss in losses[start : start + 7]:
            cut.before_step(torch.tensor(loss, dtype=torch.double))
        cut.columns()
    assert cut.total == whole.total


# The run is as it was.


def test_a_probed_run_is_the_same_run_bit_for_bit(measured):
    plain = run_trial(trial(), device="cpu")
    own = set(plain.curve[0])
    assert [{k: v for k, v in row.items() if k in own} for row in measured.curve] == plain.curve
    timed = {"seconds", "images_per_second"}
    assert {k: v for k, v in measured.metrics.items() if k not in timed} == {
        k: v for k, v in plain.metrics.items() if k not in timed
    }
    assert plain.probes == {}
    assert set(measured.curve[0]) - own == {
        "stem_grad", "stem_grad_max", "body_grad", "body_grad_max", "stem_update", "body_update", "spikes",
    }  # fmt: skip


def test_the_same_trial_measures_the_same_again(measured):
    assert run_trial(trial(EVERYTHING), device="cpu").probes == measured.probes


def test_a_record_keeps_what_was_measured(measured):
    assert TrialRecord.from_dict(json.loads(measured.to_json())) == measured
    assert set(measured.probes) == {
        "tokens", "token_similarity", "attention", "attention_distance", "cka", "stem_cka", "hessian", "hessian_top",
        "loss_spikes", "stem_grad_max", "body_grad_max",
    }  # fmt: skip
    assert not any(isinstance(value, dict) and "skipped" in value for value in measured.probes.values())
    older = {name: value for name, value in json.loads(measured.to_json()).items() if name != "probes"}
    assert TrialRecord.from_dict(older).probes == {}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_measuring_leaves_nothing_on_the_model(body):
    spec = trial(EVERYTHING, body=body)
    model, data = model_of(body, size=32), load_digits(spec.data)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fused = [block.attn.fused_attn for block in model.blocks]
    generator = torch.get_rng_state()
    found = Observer(spec, model, data).finish(None)
    assert not [name for name, value in found.items() if isinstance(value, dict) and "skipped" in value]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(module.training for module in model.modules())
    assert [block.attn.fused_attn for block in model.blocks] == fused
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(p.grad is None for p in model.parameters())


def test_a_model_that_is_no_plain_vit_says_so_and_is_measured_where_it_can_be():
    spec = trial(EVERYTHING)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
    found = Observer(spec, model, load_digits(spec.data)).finish(None)
    for name in ("tokens", "attention", "cka"):
        assert found[name] == {"skipped": "a Sequential is not a stem (patch_embed) and a list of blocks"}
    assert math.isfinite(found["hessian_top"])


def test_a_model_that_fails_does_not_fail_the_trial():
    spec = trial(EVERYTHING)
    model = model_of(size=32)
    model.blocks[1].mlp = torch.nn.Linear(3, 3)
    found = Observer(spec, model, load_digits(spec.data)).finish(None)
    assert found["tokens"]["skipped"].startswith("RuntimeError: ")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_what_is_not_finite_is_null():
    spec = trial(EVERYTHING)
    model = model_of(size=32)
    torch.nn.init.constant_(model.blocks[1].mlp.fc2.bias, math.nan)
    found = Observer(spec, model, load_digits(spec.data)).finish(None)
    json.dumps(found, allow_nan=False)
    assert found["token_similarity"] is None
    assert found["tokens"]["similarity"][0] is not None
    assert found["hessian_top"] is None
    assert found["cka"]["grams"][2] is None
    assert found["cka"]["matrix"][2] == [None] * 3
    assert found["cka"]["matrix"][1][0] is not None
    record = TrialRecord.of(spec, "ok", probes=found)
    assert cka_between(record, record).isna().to_numpy().tolist() == [[False] * 2 + [True]] * 2 + [[True] * 3]


def test_a_run_that_diverges_keeps_what_was_measured_until_then():
    record = run_trial(trial(EVERYTHING, optimizer="sgd", lr=1e4, schedule="constant"), device="cpu")
    assert record.status == "diverged"
    assert record.probes["body_grad_max"] > 0
    assert record.probes["tokens"] == {"skipped": record.error}
    assert "token_similarity" not in record.probes
    record.to_json()
