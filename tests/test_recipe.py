"""Recipes: every field of a TrainSpec does what it says, and a run that pauses goes on to the same numbers."""

from __future__ import annotations

import copy
import math
import shutil

import numpy as np
import pytest
import timm.optim
import torch
from pydantic import ValidationError
from test_checkpoint import a_trial, numbers, run, same, state
from test_distributed import together
from test_micro_batch import without_batch_norm
from torch.nn import functional as F

from stemlab.builders import build_model
from stemlab.data.digits import load_digits
from stemlab.engine.estimate import _OF_THE_PACE, _kind
from stemlab.engine.packing import memory_needed, states
from stemlab.errors import StemlabError
from stemlab.report.ablation.design_words import _recipe
from stemlab.spec import TrainSpec, TrialSpec
from stemlab.spec.training import OPTIMIZERS
from stemlab.train import compiling, loss, recipe
from stemlab.train.checkpoint import Checkpoint
from stemlab.train.pace import pace
from stemlab.train.run import Run, evaluate

MIXED = {"mixup": 0.8, "cutmix": 1.0}
VARIED = {"crop": [0.3, 1.0], "flip": 0.5, "auto": "rand-m9-mstd0.5-inc1", "erasing": 0.25, "repeats": 3, **MIXED}


def deep(**train):
    """A trial of two blocks: timm never drops the first."""
    spec = a_trial(**train).canonical()
    spec["model"]["body"]["depth"] = 2
    return TrialSpec.model_validate(spec)


def few(spec, images=40):
    part = load_digits(spec.data, "cpu").train
    return type(part)(part.images[:images], part.labels[:images])


def a_run(spec, images=40, **options):
    model = build_model(spec.model, seed=0, **recipe.options(spec.train))
    return Run(model, spec.train, 0, few(spec, images), **options)


def weights(run):
    return {name: value.clone() for name, value in run.model.state_dict().items()}


# Optimizers.


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_trains_and_goes_on_from_what_was_kept(name, tmp_path):
    assert name in timm.optim.list_optimizers()
    spec = without_batch_norm(optimizer=name, batch_size=20, epochs=4, warmup_epochs=0, lr=1e-3)
    never, kept = a_run(spec), a_run(spec)
    before = weights(never)
    for each in (never, kept):
        assert math.isfinite(each.epoch())
    place = Checkpoint(tmp_path, spec, "cpu")
    place.save(*kept.state())
    again = a_run(spec)
    again.restore(*place.load())
    never.epoch()
    again.epoch()
    assert same(weights(again), weights(never))
    assert not same(weights(never), before)
    # What the memory of a GPU is shared out by is not too little.
    kept_states = [v for s in never.optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    parameters = sum(p.numel() for p in never.model.parameters())
    assert sum(v.numel() for v in kept_states) <= (states(name) + 0.1) * parameters


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_momentum_an_optimizer_works_or_says_so(name):
    spec = without_batch_norm(batch_size=20, epochs=2).canonical()
    spec["train"] |= {"optimizer": name, "momentum": 0.0}
    if name in ("sgd", "sgdw", "nesterovw", "nlarc", "nlars"):
        with pytest.raises(ValidationError, match=f"{name} is Nesterov's, and needs a momentum above 0"):
            TrialSpec.model_validate(spec)
    else:
        assert math.isfinite(a_run(TrialSpec.model_validate(spec)).epoch())


BODIES = [
    {},
    {"qkv_bias": True, "k_bias": False},
    {"pool": "avg", "class_token": False},
    {"reg_tokens": 2, "layer_scale": 0.1},
]


@pytest.mark.parametrize("body", BODIES, ids=str)
@pytest.mark.parametrize("fields", [{}, {"stem_lr": 0.5}, {"stem_weight_decay": 0.3}, {"layer_decay": 0.5}], ids=str)
def test_norms_biases_and_embeddings_never_decay(fields, body):
    spec = a_trial().canonical()
    spec["model"]["body"] |= body
    spec["train"] |= {"weight_decay": 0.25, **fields}
    spec = TrialSpec.model_validate(spec)
    model = build_model(spec.model, seed=0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for group in recipe.optimizer(model, spec.train).param_groups:
        found |= {names[id(parameter)]: group["weight_decay"] for parameter in group["params"]}
    assert found.keys() == set(names.values())
    stem = spec.train.stem_weight_decay or 0.25
    for name, decay in found.items():
        kept = name.endswith(("bias", "gamma", "_token", "pos_embed")) or ".norm" in name or name.startswith("norm")
        kept = kept or name.startswith("fc_norm")
        assert decay == (0.0 if kept else stem if name.startswith("patch_embed.") else 0.25), name


def test_the_stem_decays_where_nothing_else_does():
    train = TrainSpec(weight_decay=0.0, stem_weight_decay=0.3)
    model = build_model(a_trial().model, seed=0)
    decays = {group["weight_decay"] for group in recipe.groups(model, train)}
    assert decays == {0.0, 0.3}


@pytest.mark.parametrize("schedule", ["cosine", "step", "tanh"])
def test_rates_keep_their_ratios_all_the_way(schedule):
    fields = {"decay_epochs": 1.5} if schedule == "step" else {}
    spec = a_trial(layer_decay=0.5, stem_lr=0.1, schedule=schedule, batch_size=20, **fields)
    found = a_run(spec)
    names = {id(parameter): name for name, parameter in found.model.named_parameters()}
    for _ in range(3):
        found.epoch()
        for group in found.optimizer.param_groups:
            for name in (names[id(parameter)] for parameter in group["params"]):
                # Of one block: the head and the norm are above it, or beside it.
                below = 0.25 if name.startswith(("patch_embed", "cls_token", "pos_embed")) else 0.5
                scale = 1.0 if name.startswith("head") else below * (0.1 if name.startswith("patch_embed") else 1.0)
                assert group["lr"] == pytest.approx(scale * found.lr), name
    assert found.lr <= spec.train.lr


def test_a_slow_stem_moves_less():
    def moved(**fields):
        found = a_run(a_trial(optimizer="momentum", lr=0.1, batch_size=20, **fields))
        before = weights(found)
        found.epoch()
        return {name: (value - before[name]).abs().max() for name, value in weights(found).items() if "weight" in name}

    plain, slow = moved(), moved(stem_lr=1e-3)
    conv = "patch_embed.layers.conv1.weight"
    assert slow[conv] < 0.01 * plain[conv]
    assert slow["head.weight"] > 0.5 * plain["head.weight"]


# Schedules.


def rates(steps=10, **fields):
    train = TrainSpec(lr=0.5, epochs=10, **{"warmup_epochs": 2.0, **fields})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=train.lr)
    schedule = recipe.schedule(optimizer, train, steps)
    found = []
    for update in range(10 * steps):
        found.append(optimizer.param_groups[0]["lr"])
        schedule.step_update(update + 1)
    return np.array(found)


def test_the_rates_of_old_recipes_are_what_they_were():
    updates = np.arange(100)
    warm = np.minimum(updates[:20] * (0.5 - 0.025) / 20 + 0.025, 0.5)
    assert np.allclose(rates(schedule="constant"), np.concatenate([warm, np.full(80, 0.5)]))
    cosine = 0.01 + 0.5 * 0.49 * (1 + np.cos(np.pi * np.arange(80) / 80))
    assert np.allclose(rates(schedule="cosine", min_lr=0.01), np.concatenate([warm, cosine]))


def test_steps_are_where_the_recipe_has_them():
    found = rates(schedule="step", decay_epochs=3)
    assert np.allclose(found[20:], np.repeat([0.5, 0.05, 0.005, 0.0005], [10, 30, 30, 10]))
    found = rates(schedule="multistep", milestones=[8, 5], decay_rate=0.5)
    assert np.allclose(found[20:], np.repeat([0.5, 0.25, 0.125], [30, 30, 20]))


@pytest.mark.parametrize("schedule", ["cosine", "poly", "tanh"])
def test_falling_schedules_begin_at_the_rate_and_end_at_the_least(schedule):
    found = rates(schedule=schedule, min_lr=0.01)
    assert found[20] == pytest.approx(0.5, rel=1e-5)
    assert (np.diff(found[20:]) < 0).all()
    assert 0.01 <= found[-1] < 0.08


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"schedule": "step"}, "the schedule step needs decay_epochs"),
        ({"schedule": "multistep"}, "needs its milestones"),
        ({"schedule": "poly", "decay_rate": 0.5}, "is for the schedule step or multistep, not poly"),
        ({"schedule": "step", "decay_epochs": 1, "min_lr": 1e-5}, "ends at no min_lr"),
        ({"optimizer": "adamW"}, "adamw"),
        ({"preset": "vitc"}, "unknown preset 'vitc'"),
        ({"augment": {"auto": "rand-q9"}}, "unknown policy 'rand-q9'"),
        ({"augment": {"auto": "rnd-m9"}}, "unknown policy 'rnd-m9'"),
        ({"augment": {"auto": "x"}}, "unknown policy 'x'"),
        ({"augment": {"auto": "original", "color_jitter": 0.4}}, "which varies colours itself"),
        ({"augment": {"mixup": 0.8, "cutmix_share": 0.5}}, "for mixup and cutmix together"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused(fields, said):
    with pytest.raises(ValidationError, match=said):
        TrainSpec.model_validate(fields)


# How the weights are found.


def test_batches_add_up_to_an_update():
    fields = {"optimizer": "momentum", "lr": 0.1, "label_smoothing": 0.1, "clip_grad": 0.5, "warmup_epochs": 0}
    whole = a_run(without_batch_norm(batch_size=30, **fields), 100)
    parts = a_run(without_batch_norm(batch_size=10, accumulate=3, **fields), 100)
    assert parts.epoch() == pytest.approx(whole.epoch(), rel=1e-5)
    assert (parts.steps, parts.updates, parts.images, parts.micro) == (3, 3, 90, 10)
    for name, value in weights(parts).items():
        torch.testing.assert_close(value, weights(whole)[name], rtol=1e-4, atol=1e-6)


def test_an_update_sees_no_more_than_there_is():
    found = a_run(without_batch_norm(batch_size=12, accumulate=100), 40)
    assert (found.batch, found.batches, found.steps) == (40, 4, 1)
    assert math.isfinite(found.epoch())


def test_half_precision_trains_and_skips_what_overflows():
    found = a_run(without_batch_norm(precision="fp16", batch_size=20, lr=0.01, warmup_epochs=0))
    assert all(parameter.dtype == torch.float32 for parameter in found.model.parameters())
    losses = [found.epoch() for _ in range(4)]
    assert losses[-1] < losses[0]
    before = weights(found)
    found.scaler.update(2.0**127)  # the gradients of the next two steps overflow
    found.epoch()
    assert found.scaler.get_scale() == 2.0**125
    assert same(weights(found), before)


def test_tf32_is_of_the_run_alone(monkeypatch):
    seen = []
    before = torch.get_float32_matmul_precision()
    found = a_run(without_batch_norm(precision="tf32", batch_size=20))
    found.model.register_forward_pre_hook(lambda *_: seen.append(torch.get_float32_matmul_precision()))
    first = next(iter(found.model.parameters()))
    first.register_hook(lambda _: seen.append(f"backward {torch.get_float32_matmul_precision()}"))
    found.epoch()
    evaluate(found.model, found.part, found.spec)
    assert seen == ["high", "backward high"] * 2 + ["high"]
    assert torch.get_float32_matmul_precision() == before
    found.model.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        found.epoch()
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize("fields", [{"checkpointing": True}, {"channels_last": True}], ids=str)
def test_how_it_is_computed_changes_nothing_but_rounding(fields):
    plain = a_run(deep(drop_path=0.3, batch_size=20))
    other = a_run(deep(drop_path=0.3, batch_size=20, **fields))
    assert other.epoch() == pytest.approx(plain.epoch(), rel=1e-4)
    for name, value in weights(other).items():
        torch.testing.assert_close(value, weights(plain)[name], rtol=1e-3, atol=1e-4)
    conv = other.model.patch_embed.layers.conv1.weight
    assert conv.is_contiguous(memory_format=torch.channels_last) == ("channels_last" in fields)
    assert other.model.grad_checkpointing == ("checkpointing" in fields)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_a_compiled_run_is_the_run():
    plain, other = (a_run(without_batch_norm(batch_size=40, **fields)) for fields in ({}, {"compile": True}))
    assert other.epoch() == pytest.approx(plain.epoch(), rel=1e-4)
    assert weights(other).keys() == weights(plain).keys()


def test_without_a_compiler_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(StemlabError, match=r"train\.compile needs a C\+\+ compiler on the CPU"):
        a_run(a_trial(compile=True))
    monkeypatch.setenv("CXX", "my-c++")
    with pytest.raises(StemlabError, match=r"CXX is my-c\+\+"):
        compiling.compiled(len, torch.device("cpu"))


def test_the_mean_of_the_weights_is_what_is_judged():
    spec = a_trial(ema=0.75, batch_size=20, warmup_epochs=1, epochs=3)
    found = a_run(spec)
    assert found.judged is not found.model
    found.epoch()
    assert same(found.judged.state_dict(), weights(found))  # as long as it warms up
    expected, seen = weights(found), []
    found.epoch(lambda: seen.append(weights(found)))
    for step in seen:
        # The first update behind the warm-up is taken whole, as timm does.
        whole = {n for n, v in step.items() if step is seen[0] or not v.is_floating_point()}
        expected = {n: v if n in whole else 0.75 * expected[n] + 0.25 * v for n, v in step.items()}
    for name, value in found.judged.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    assert evaluate(found.judged, found.part, spec.train) != evaluate(found.model, found.part, spec.train)


def test_a_trial_is_judged_by_the_mean_of_the_weights():
    plain, _ = run(a_trial(lr=0.02))
    record, _ = run(a_trial(lr=0.02, ema=0.9))
    assert [row["train_loss"] for row in record.curve] == [row["train_loss"] for row in plain.curve]
    assert record.curve[0] == plain.curve[0]  # warm-up
    assert [row["loss"] for row in record.curve[1:]] != [row["loss"] for row in plain.curve[1:]]


def test_drop_path_reaches_timms_class():
    model = build_model(deep().model, seed=0, **recipe.options(TrainSpec(drop_path=0.2)))
    assert [module.drop_prob for module in model.modules() if hasattr(module, "drop_prob")] == pytest.approx([0.2] * 2)
    assert numbers(run(deep(epochs=2, drop_path=0.5))[0]) != numbers(run(deep(epochs=2))[0])


# What the loss is of.


@pytest.mark.parametrize("body", [*BODIES, {"distilled": True}, {"pool": "map", "class_token": False}], ids=str)
def test_tokens_have_a_loss_of_their_own(body):
    spec = a_trial(token_labels=0.5).canonical()
    spec["model"]["body"] |= body
    spec = TrialSpec.model_validate(spec)
    model = build_model(spec.model, seed=0).eval()
    images = torch.randn(6, 3, 8, 8)
    logits, dense = loss.outputs(model, images, tokens=True)
    torch.testing.assert_close(logits, model(images))
    assert dense.shape == (6, 4, 10)
    labels = torch.arange(6)
    of_tokens = torch.stack([F.cross_entropy(dense[:, token], labels) for token in range(4)]).mean()
    expected = F.cross_entropy(logits, labels) + 0.5 * of_tokens
    torch.testing.assert_close(loss.loss(spec.train, (logits, dense), labels), expected)
    shares = F.one_hot(labels, 10).float()
    torch.testing.assert_close(loss.loss(spec.train, (logits, dense), shares), expected)


@pytest.mark.parametrize("augment", [{"mixup": 0.8}, {"cutmix": 1.0}, {**MIXED, "cutmix_share": 0.3}], ids=str)
@pytest.mark.parametrize("count", [1, 6, 7])
def test_images_and_labels_are_mixed_alike(augment, count):
    mix = loss.mixer(TrainSpec(augment=augment, label_smoothing=0.1), 10)
    images = torch.eye(count)[:, :, None, None].expand(count, count, 8, 8)  # each has a channel of its own
    labels = torch.arange(count)
    generators = torch.get_rng_state(), np.random.get_state()[1].copy()
    for seed in range(8):
        found, shares = loss.mixed(mix, images, labels, seed)
        torch.testing.assert_close(found.mean((-2, -1)), shares[:, :count], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(shares.sum(1), torch.ones(count))
        again, same_shares = loss.mixed(mix, images, labels, seed)
        assert torch.equal(found, again)
        assert torch.equal(shares, same_shares)
        if count % 2:
            assert torch.equal(found[-1], images[-1])
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert np.array_equal(np.random.get_state()[1], generators[1])


def test_each_batch_is_mixed_anew():
    spec = without_batch_norm(batch_size=10, augment=MIXED)
    found, seen = a_run(spec), []
    mix = found.mix
    found.mix = lambda images, labels: seen.append(mix(images, labels)) or seen[-1]
    found.mix.num_classes = 10
    found.epoch()
    found.epoch()
    assert len({float(shares[0].max()) for _, shares in seen}) == 8


def test_images_are_repeated_and_as_many_are_seen():
    found = a_run(without_batch_norm(batch_size=10, augment={"repeats": 3}), 40)
    chosen, _ = found._draw()
    counted = torch.cat(chosen).bincount(minlength=40)
    assert (int(counted.sum()), sorted(counted[counted > 0].tolist())) == (40, [1] + [3] * 13)


# All of it.


@pytest.mark.parametrize(
    "fields",
    [
        {"augment": VARIED, "token_labels": 0.5, "drop_path": 0.2, "ema": 0.9, "batch_size": 100},
        {"precision": "fp16", "accumulate": 2, "batch_size": 100, "layer_decay": 0.7, "stem_lr": 0.1},
        {"channels_last": True, "ema": 0.9, "schedule": "step", "decay_epochs": 1, "checkpointing": True},
    ],
    ids=["varied", "scaled", "laid out"],
)
def test_a_trial_that_pauses_is_the_one_that_never_did(fields, tmp_path):
    spec = deep(epochs=3, **fields)
    never, _ = run(spec)
    run(spec, tmp_path, until=1)
    run(spec, tmp_path, until=2)
    kept = state(tmp_path, spec)
    assert any(name.startswith("ema.") for name in kept) == ("ema" in fields)
    whole, epochs = run(spec, tmp_path)
    assert epochs == [3]
    assert numbers(whole) == numbers(never)


@pytest.mark.slow
def test_two_processes_come_to_the_numbers_of_one():
    fields = {"batch_size": 51, "accumulate": 2, "ema": 0.9, "clip_grad": 1.0, "layer_decay": 0.7, "drop_path": 0.1}
    spec = without_batch_norm(epochs=2, **fields)
    one, two = run(spec)[0], together(spec)[0]
    for row, expected in zip(two.curve, one.curve, strict=True):
        assert row == pytest.approx(expected, rel=1e-3, abs=0.003)


def test_a_run_goes_on_from_between_two_steps():
    spec = deep(batch_size=10, accumulate=2, augment=VARIED, ema=0.9, precision="fp16", drop_path=0.2)
    never, kept = a_run(spec, 100), []
    never.epoch(lambda: kept.append(copy.deepcopy(never.state())) if never.step == 3 else None)
    never.epoch()
    again = a_run(spec, 100)
    again.restore(*kept[0])
    again.epoch()
    again.epoch()
    assert same(again.judged.state_dict(), never.judged.state_dict())
    assert same(weights(again), weights(never))


def test_a_mean_of_weights_and_more_states_take_more_memory():
    need = {
        name: memory_needed(TrialSpec.model_validate({**wide, "train": {"batch_size": 1, **train}}))
        for wide in [a_trial().canonical() | {"model": WIDE}]
        for name, train in {
            "adamw": {}, "ema": {"ema": 0.9}, "sgd": {"optimizer": "sgd"}, "adan": {"optimizer": "adan"},
        }.items()
    }  # fmt: skip
    assert need["sgd"] < need["adamw"] < need["ema"] < need["adan"]


WIDE = {"stem": {"patch": 2}, "body": {"dim": 768, "depth": 12, "heads": 12}, "image_size": 8, "classes": 10}


FREE = {
    "epochs", "lr", "weight_decay", "momentum", "schedule", "warmup_epochs", "min_lr", "label_smoothing", "clip_grad",
    "decay_rate", "decay_epochs", "milestones", "layer_decay", "stem_lr", "stem_weight_decay",
}  # fmt: skip


def test_an_estimate_knows_what_an_update_takes():
    assert set(_OF_THE_PACE) | FREE == set(TrainSpec.model_fields)
    assert _kind(a_trial()) == _kind(a_trial(lr=0.1))
    others = [{"ema": 0.9}, {"accumulate": 2}, {"checkpointing": True}, {"augment": {"flip": 0.5}}]
    assert len({_kind(a_trial(**fields)) for fields in ({}, *others)}) == 5


def test_the_pace_of_a_recipe_is_of_all_it_does():
    spec = a_trial(batch_size=50, accumulate=3, ema=0.9, augment={"crop": [0.5, 1], **MIXED})
    found = pace(spec, "cpu")
    assert found.build > 0
    expected = found.build + 4 * (1077 // 150 * found.update + 360 * found.image) + 360 * found.image
    assert found.seconds(spec) == pytest.approx(expected)


def test_a_report_tells_the_recipe():
    plain = {
        "epochs": 9,
        "optimizer": "lamb",
        "ema": 0.99,
        "stem_lr": 0.5,
        "schedule": "multistep",
        "milestones": [3, 6],
    }
    trains = [
        TrainSpec.model_validate({**plain, **more}) for more in ({}, {"augment": {"crop": [0.08, 1.0], "auto": "v0"}})
    ]
    words = _recipe(trains, [])
    assert "decay of the mean of weights 0.99" in words
    assert "learning rate of the stem as a multiple 0.5" in words
    assert "milestones 3, 6" in words
    assert "images varied by none or (crop 0.08, 1; auto v0) by arm" in words
    assert "drop path" not in words
