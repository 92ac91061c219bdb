"""Packed runs: a member comes to what its trial would have come to alone."""

from __future__ import annotations

import math

import pytest
import torch

from stemlab.builders import build_model
from stemlab.data.load import load
from stemlab.data.split import MemoryPart
from stemlab.matching import match
from stemlab.spec import TrialSpec
from stemlab.spec.packs import pack_key
from stemlab.train import run_trial
from stemlab.train.packed import Pack, run_packed
from stemlab.train.run import Run

STEMS = {
    "patchify": {"patch": 8},
    "conv": {"channels": [8, 16, 32], "kernels": 3, "strides": 2, "norm": "batch", "act": "relu"},
}
BODY = {"dim": 32, "depth": 1, "heads": 2, "mlp_ratio": 2, "class_token": False}


def trial(stem="conv", seed=0, body=BODY, **train):
    return TrialSpec.model_validate(
        {
            "model": {"stem": STEMS[stem], "body": body, "image_size": 32, "classes": 10},
            "data": {"name": "digits"},
            "train": {"epochs": 2, "batch_size": 32, "warmup_epochs": 0.5, "lr": 1e-3, **train},
            "seed": seed,
        }
    )


def members(stem, **train):
    """Trials that differ in all that members may differ in."""
    lr = 1e-3 if train.get("optimizer", "adamw") == "adamw" else 3e-3
    own = [
        {"seed": 3, "lr": 0.3 * lr, "weight_decay": 0.3},
        {"seed": 5, "lr": 2 * lr, "schedule": "constant", "weight_decay": 0.0},
        {"seed": 7, "lr": lr, "momentum": 0.5, "warmup_epochs": 0.0, "min_lr": 1e-4},
    ]
    return [trial(stem, **train, **each) for each in own]


def alone(one, part):
    return Run(build_model(match(one.model).model, seed=one.seed), one.train, one.seed, part)


def distance(pack, place, run, start):
    """How far a member's weights and buffers are from its solo run's, by how far that has come from its start."""
    own = {name: tensor[place].detach() for name, tensor in {**pack.stack.named, **pack.buffers}.items()}
    solo = run.model.state_dict()
    assert own.keys() == solo.keys()
    apart = moved = 0.0
    for name, tensor in solo.items():
        apart += float((tensor - own[name]).double().square().sum())
        moved += float((tensor - start[name]).double().square().sum())
    return math.sqrt(apart / moved)


# Sums are taken in another order, and training makes more of the rounding with every step: a solo run whose first
# weights are changed by a ten-millionth is as far off (2e-3 with AdamW at the larger of these rates).
TOLERANCE = {20: 1e-4, 200: 1e-2}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("steps", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_a_member_has_the_weights_of_its_solo_run(stem, optimizer, steps):
    trials = members(stem, optimizer=optimizer, epochs=40, batch_size=16)
    digits = load(trials[0].data).train
    part = MemoryPart(digits.images[:85], digits.labels[:85])
    pack = Pack(trials, part, "cpu")
    runs = [alone(one, part) for one in trials]
    starts = [{name: tensor.clone() for name, tensor in run.model.state_dict().items()} for run in runs]
    for epoch in range(1, steps // 5 + 1):
        losses, expected = pack.epoch(), [run.epoch() for run in runs]
        assert pack.lrs == [run.lr for run in runs]
        if 5 * epoch in TOLERANCE:
            most = TOLERANCE[5 * epoch]
            assert losses == pytest.approx(expected, rel=most, abs=most)
            assert max(distance(pack, place, run, starts[place]) for place, run in enumerate(runs)) < most
    assert pack.updates == runs[0].updates == steps


def test_records_are_those_of_solo_runs():
    trials = members("conv", clip_grad=1.0, label_smoothing=0.1, epochs=1)
    rows = []
    packed = run_packed(trials, lambda place, row: rows.append((place, row)))
    for place, (one, record) in enumerate(zip(trials, packed, strict=True)):
        solo = run_trial(one)
        assert (record.trial, record.status, record.cost, record.match) == (one.digest, "ok", solo.cost, solo.match)
        assert record.metrics.pop("packed") == 3
        assert record.metrics.keys() == solo.metrics.keys()
        (row,), (expected,) = record.curve, solo.curve
        assert row["lr"] == expected["lr"]
        assert row == pytest.approx(expected, abs=3 / 360)  # an image or two may be judged otherwise
        assert record.metrics["test_loss"] == pytest.approx(solo.metrics["test_loss"], rel=1e-3)
        assert (place, {**row, "epochs": 1}) in rows
    assert len(rows) == 3


@pytest.mark.parametrize("stem", STEMS)
def test_a_member_that_diverges_changes_nothing_for_the_others(stem):
    trials = [trial(stem, seed=seed, optimizer="sgd", lr=lr) for seed, lr in enumerate((1e-2, 1e30, 1e-2))]
    packed = run_packed(trials)
    assert [record.status for record in packed] == ["ok", "diverged", "ok"]
    solo = run_trial(trials[1])
    assert (packed[1].status, packed[1].curve, packed[1].error) == (solo.status, solo.curve, solo.error)
    assert packed[1].metrics.keys() == {*solo.metrics, "packed"}
    for with_it, without in zip((packed[0], packed[2]), run_packed([trials[0], trials[2]]), strict=True):
        assert [row["loss"] for row in with_it.curve] == pytest.approx([row["loss"] for row in without.curve], rel=1e-5)


def test_a_pack_all_of_which_diverges_ends():
    packed = run_packed([trial(seed=seed, optimizer="sgd", lr=1e30) for seed in range(2)])
    assert [(record.status, record.curve) for record in packed] == [("diverged", [])] * 2


def test_adamw_goes_on_with_the_members_that_are_kept():
    trials = members("conv")
    digits = load(trials[0].data).train
    part = MemoryPart(digits.images[:100], digits.labels[:100])
    pack, run = Pack(trials, part, "cpu"), alone(trials[1], part)
    start = {n: t.clone() for n, t in run.model.state_dict().items()}
    pack.epoch(), run.epoch()
    pack.keep([1, 2])
    pack.epoch(), run.epoch()
    assert distance(pack, 0, run, start) < 1e-4


def test_bf16_is_packed_too():
    packed = run_packed([trial(epochs=1, warmup_epochs=0.1, precision="bf16", seed=seed) for seed in range(2)])
    solo = run_trial(trial(epochs=1, warmup_epochs=0.1, precision="bf16", seed=1))
    assert packed[1].metrics["loss"] == pytest.approx(solo.metrics["loss"], rel=0.05)


def test_one_trial_is_no_pack():
    (record,) = run_packed([trial(epochs=1, warmup_epochs=0.0)])
    assert "packed" not in record.metrics


def test_torch_s_generator_is_left_as_it_was():
    before = torch.get_rng_state()
    run_packed([trial(epochs=1, warmup_epochs=0.0, seed=seed) for seed in range(2)])
    assert torch.equal(torch.get_rng_state(), before)


SAME = [{"seed": 9}, {"lr": 0.1}, {"weight_decay": 0.2}, {"momentum": 0.1}, {"schedule": "constant"}, {"min_lr": 1e-5}]
OTHER = [{"stem": "patchify"}, {"batch_size": 16}, {"epochs": 3}, {"optimizer": "sgd"}, {"clip_grad": 1.0}]
NEVER = [{"optimizer": "lamb"}, {"ema": 0.9}, {"layer_decay": 0.9}, {"precision": "tf32"}, {"augment": {"flip": 0.5}}]


@pytest.mark.parametrize("change", SAME, ids=str)
def test_these_are_packed_together(change):
    assert pack_key(trial(**change)) == pack_key(trial()) is not None


@pytest.mark.parametrize("change", OTHER, ids=str)
def test_these_are_packed_with_others(change):
    assert pack_key(trial()) != pack_key(trial(**change)) is not None


@pytest.mark.parametrize("change", NEVER, ids=str)
def test_these_are_trained_alone(change):
    assert pack_key(trial(**change)) is None


def test_what_measures_a_model_trains_alone():
    latencies = trial().replace(latency={"model": {"max": 100}})
    assert pack_key(latencies) is None
    with pytest.raises(ValueError, match="cannot be packed"):
        run_packed([latencies, latencies])
    with pytest.raises(ValueError, match="cannot be packed"):
        run_packed([trial(), trial("patchify")])
