"""A trial that pauses and goes on is the trial that never paused, bit for bit; what is no state of its is not taken."""

from __future__ import annotations

import errno
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from stemlab.builders import build_model
from stemlab.spec import Floor, TrialSpec
from stemlab.train import checkpoint, run_trial, trial

TIMED = {"seconds", "images_per_second"}


def a_trial(seed=0, probes=None, **train):
    model = {
        "stem": {"channels": [4, 8], "kernels": 3, "strides": [2, 2], "norm": "batch", "act": "relu"},
        "body": {"dim": 8, "depth": 1, "heads": 2, "mlp_ratio": 2},
        "image_size": 8,
        "classes": 10,
    }
    return TrialSpec.model_validate(
        {
            "model": model,
            "data": {"name": "digits", "image_size": 8},
            "train": {"epochs": 4, "batch_size": 512, **train},
            "seed": seed,
            "probes": probes,
        }
    )


def run(spec, keep=None, **order):
    rows = []
    record = run_trial(spec, rows.append, "cpu", keep=keep, **order)
    return record, [row["epoch"] for row in rows]


def numbers(record):
    metrics = {name: value for name, value in record.metrics.items() if name not in TIMED}
    return record.status, record.curve, metrics, record.probes, record.until, record.error


def state(keep, spec):
    with safe_open(keep / spec.digest / checkpoint.STATE, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


PROBES = {"gradients": True, "updates": True, "spikes": True, "tokens": True, "images": 16}


@pytest.mark.parametrize(
    "spec",
    [
        a_trial(optimizer=optimizer, schedule=schedule, clip_grad=1.0)
        for optimizer, schedule in zip(
            ("adamw", "sgd", "adam", "lamb", "lion", "nadamw", "rmsprop"), ("cosine", "constant") * 4, strict=False
        )
    ]
    + [a_trial(probes=PROBES, batch_size=32, epochs=3), a_trial(precision="bf16", epochs=3)],
    ids=["adamw", "sgd", "adam", "lamb", "lion", "nadamw", "rmsprop", "probes", "bf16"],
)
def test_a_trial_that_pauses_is_the_one_that_never_did(spec, tmp_path):
    paused, straight = tmp_path / "paused", tmp_path / "straight"
    never, epochs = run(spec, paused)
    assert (never.status, epochs) == ("ok", list(range(1, spec.train.epochs + 1)))
    first, epochs = run(spec, paused, until=1)
    assert (first.status, first.until, first.curve, epochs) == ("pruned", 1, never.curve[:1], [1])
    second, epochs = run(spec, paused, until=2)
    assert epochs == [2]
    assert numbers(second) == numbers(run(spec, straight, until=2)[0])
    assert same(state(paused, spec), state(straight, spec))  # weights, optimizer, order of the images
    whole, epochs = run(spec, paused)
    assert epochs == list(range(3, spec.train.epochs + 1))
    assert numbers(whole) == numbers(never)
    assert whole.metrics["seconds"] > second.metrics["seconds"] > first.metrics["seconds"]
    assert list(paused.rglob("*.safetensors")) == []


def test_what_layers_draw_goes_on_too(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "build_model", partial(build_model, drop_path_rate=0.3, proj_drop_rate=0.2))
    before = torch.get_rng_state()
    spec = a_trial(epochs=3)
    never, _ = run(spec)
    torch.manual_seed(99)  # what others draw is nothing to it
    again, _ = run(spec)
    run(spec, tmp_path, until=2)
    torch.rand(7)
    assert numbers(run(spec, tmp_path)[0]) == numbers(again) == numbers(never)
    torch.set_rng_state(before)
    monkeypatch.undo()
    assert numbers(run(spec)[0]) != numbers(never)


def test_torchs_own_generator_is_left_as_it_was():
    before = torch.get_rng_state()
    run(a_trial(epochs=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_pruned_record_has_the_numbers_of_its_last_epoch_and_none_of_the_test_part(tmp_path):
    record, _ = run(a_trial(), tmp_path, until=2)
    last = record.curve[-1]
    assert {name: value for name, value in record.metrics.items() if name not in TIMED} == {
        "top1": last["top1"], "top1_error": 1 - last["top1"], "loss": last["loss"],
    }  # fmt: skip
    assert record.metrics["images_per_second"] > 0


def test_until_the_last_epoch_or_beyond_is_the_whole_trial(tmp_path):
    whole = numbers(run(a_trial(epochs=2))[0])
    assert [numbers(run(a_trial(epochs=2), tmp_path, until=until)[0]) for until in (2, 7)] == [whole] * 2


def test_a_state_from_behind_the_epoch_asked_for_answers_and_stays(tmp_path):
    spec = a_trial()
    run(spec, tmp_path, until=3)
    kept = state(tmp_path, spec)
    earlier, epochs = run(spec, tmp_path, until=2)
    assert epochs == []
    assert numbers(earlier) == numbers(run(spec, until=2)[0])
    assert same(state(tmp_path, spec), kept)
    assert run(spec, tmp_path)[1] == [4]


def _cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def _flip(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 4
    path.write_bytes(content)


def _alter(path, **stamp):
    with safe_open(path, framework="pt") as file:
        tensors, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    checkpoint.save_file(tensors, path, {**header, **stamp})


BROKEN = {
    "cut": _cut,
    "a bit has flipped": _flip,
    "empty": lambda path: path.write_bytes(b""),
    "no safetensors": lambda path: path.write_bytes(b"\x80\x04nonsense" * 100),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "another trial's": lambda path: _alter(path, trial="0" * 16),
    "made by another torch": lambda path: _alter(path, made_by="torch 1.0 cpu"),
    "changed by hand": lambda path: _alter(path, state="{}"),
}


@pytest.mark.parametrize("harm", BROKEN.values(), ids=BROKEN)
def test_what_is_not_its_state_is_not_taken_up(harm, tmp_path):
    spec = a_trial(epochs=2)
    never, _ = run(spec)
    run(spec, tmp_path, until=1)
    harm(tmp_path / spec.digest / checkpoint.STATE)
    whole, epochs = run(spec, tmp_path)
    assert epochs == [1, 2]
    assert numbers(whole) == numbers(never)


def test_the_state_of_a_model_that_was_built_otherwise_is_not_taken_up(tmp_path, monkeypatch):
    spec = a_trial(epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(trial, "build_model", partial(build_model, init_values=0.1))
        run(spec, tmp_path, until=1)
    whole, epochs = run(spec, tmp_path)
    assert epochs == [1, 2]
    assert numbers(whole) == numbers(run(spec)[0])


def test_a_full_disk_costs_the_state_and_not_the_record(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    spec = a_trial(epochs=2)
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.warns(UserWarning, match="No space left on device; the trial will begin anew"):
        record, _ = run(spec, tmp_path, until=1)
    assert record.status == "pruned"
    assert list(tmp_path.rglob("*checkpoint*")) == []
    assert run(spec, tmp_path)[1] == [1, 2]


def test_a_trial_that_diverges_keeps_nothing(tmp_path):
    spec = a_trial(optimizer="sgd", lr=1e4, schedule="constant", warmup_epochs=1, epochs=3)
    run(spec, tmp_path, until=1)
    record, _ = run(spec, tmp_path)
    assert record.status == "diverged"
    assert list(tmp_path.rglob("*.safetensors")) == []


# The floor.


def test_a_trial_below_its_floor_is_stopped_and_says_so(tmp_path):
    spec = a_trial()
    whole, _ = run(spec)
    best = max(row["top1"] for row in whole.curve[:2])
    floor = Floor(metric="top1", sign=1, values=(0.0, best + 0.125, 1.0))
    record, epochs = run(spec, tmp_path, floor=floor)
    assert (record.status, record.until, record.curve, epochs) == ("pruned", None, whole.curve[:2], [1, 2])
    assert record.error == (
        f"stopped behind epoch 2: top1 was {best:.4g} at best, which misses the floor of {best + 0.125:.4g} by 0.12"
    )
    # From its state it comes to the same, and leaves none: it is stopped for good.
    run(spec, tmp_path, until=3)
    again, epochs = run(spec, tmp_path, floor=floor)
    assert epochs == []
    assert numbers(again) == numbers(record)
    assert list(tmp_path.rglob("*.safetensors")) == []


@settings(max_examples=12)
@given(data=st.data())
def test_only_the_best_value_so_far_counts(data):
    metric = data.draw(st.sampled_from(["top1", "top1_error", "loss"]))
    sign = 1 if metric == "top1" else -1
    numbers = st.integers(0, 8).map(lambda eighths: eighths / 8)
    curve = [{"top1": data.draw(numbers), "loss": data.draw(numbers)} for _ in range(data.draw(st.integers(1, 4)))]
    values = tuple(data.draw(st.lists(st.none() | numbers, max_size=5)))
    found = trial.shortfall(Floor(metric=metric, sign=sign, values=values), curve)
    seen = [1 - row["top1"] if metric == "top1_error" else row[metric] for row in curve]
    best = max(seen) if sign == 1 else min(seen)
    least = values[len(curve) - 1] if len(curve) <= len(values) else None
    assert (found is not None) == (least is not None and (best < least if sign == 1 else best > least))
    if found:
        assert found.startswith(f"stopped behind epoch {len(curve)}: {metric} was {best:.4g} at best")


def test_without_a_floor_nothing_is_stopped():
    assert trial.shortfall(None, [{"top1": 0.0}]) is None
