"""Micro-batches: a batch in parts is the batch; out of memory, a trial begins anew with less at a time."""

from __future__ import annotations

import json
import traceback

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_checkpoint import a_trial, numbers, run, same, state

from stemlab.builders import build_model
from stemlab.data.digits import load_digits
from stemlab.engine.work import perform, train
from stemlab.errors import StemlabError
from stemlab.spec import Order, TrialSpec
from stemlab.train import trial
from stemlab.train.run import Run


def without_batch_norm(seed=0, **recipe):
    spec = a_trial(seed, **recipe).canonical()
    return TrialSpec.model_validate({**spec, "model": {**spec["model"], "stem": {"patch": 2}}})


class Little(torch.nn.Module):
    """A memory that holds so many images at a time, while it trains."""

    def __init__(self, images):
        super().__init__()
        self.images, self.seen = images, []

    def forward(self, images):
        self.seen.append(len(images))
        if len(images) > self.images:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return images


@pytest.fixture
def memory(monkeypatch):
    """Give the models of trials a memory for so many images; return what they were given at a time."""

    def limit(images):
        little = Little(images)

        def build(*arguments, **options):
            model = build_model(*arguments, **options)
            model.register_forward_pre_hook(lambda _, given: (little(*given),))
            return model

        monkeypatch.setattr(trial, "build_model", build)
        return little.seen

    return limit


@settings(max_examples=8)
@given(
    micro=st.integers(1, 40),
    smoothing=st.sampled_from([0.0, 0.1]),
    clip=st.none() | st.just(0.5),
)
def test_a_step_in_parts_is_the_step(micro, smoothing, clip):
    spec = without_batch_norm(batch_size=40, optimizer="sgd", lr=0.5, label_smoothing=smoothing, clip_grad=clip)
    part = load_digits(spec.data, "cpu").train
    few = type(part)(part.images[:80], part.labels[:80])
    runs = [Run(build_model(spec.model, seed=0), spec.train, 0, few, micro=m) for m in (None, micro)]
    losses = [each.epoch() for each in runs]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for whole, parts in zip(*(each.model.parameters() for each in runs), strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


def test_a_trial_that_does_not_fit_begins_anew_with_less_at_a_time(memory):
    spec = without_batch_norm(batch_size=300, epochs=2)
    whole, _ = run(spec)
    seen = memory(100)
    record, _ = run(spec)
    assert seen[:3] == [300, 150, 75]
    assert max(seen[2:]) == 75  # when it is judged, too
    assert record.status == "ok"
    assert record.metrics["micro_batch"] == 75
    assert "micro_batch" not in whole.metrics
    for row, full in zip(record.curve, whole.curve, strict=True):
        assert row == pytest.approx(full, rel=1e-3)


def test_where_it_fits_the_numbers_are_the_same_again(memory):
    """Begun anew from the seed, not from where the memory ended."""
    spec = a_trial(batch_size=300, epochs=2)
    memory(299)
    record, epochs = run(spec)
    assert epochs == [1, 2]
    assert numbers(record) == numbers(run(spec)[0])


def test_a_paused_trial_goes_on_with_as_much_at_a_time(memory, tmp_path):
    spec = a_trial(batch_size=300, epochs=3)
    seen = memory(100)
    whole, _ = run(spec)
    run(spec, tmp_path / "a", until=1)
    seen.clear()
    run(spec, tmp_path / "a", until=2)
    assert max(seen) == 75
    run(spec, tmp_path / "b", until=2)
    assert same(state(tmp_path / "a", spec), state(tmp_path / "b", spec))
    assert numbers(run(spec, tmp_path / "a")[0]) == numbers(whole)


def test_a_paused_trial_that_no_longer_fits_begins_anew(memory, tmp_path):
    spec = a_trial(batch_size=300, epochs=2)
    run(spec, tmp_path, until=1)
    memory(200)
    record, epochs = run(spec, tmp_path)
    assert epochs == [1, 2]
    assert numbers(record) == numbers(run(spec)[0])


def test_what_holds_not_one_image_is_a_failure(memory):
    seen = memory(0)
    spec = a_trial(batch_size=5)
    with pytest.raises(StemlabError, match="out of memory with one image at a time: CUDA out of memory"):
        run(spec)
    assert seen == [5, 3, 2, 1]
    record = perform(train, Order(trial=spec), lambda row: None)
    assert record.status == "failed"
    assert "out of memory with one image at a time" in record.error
    assert json.loads(record.to_json())["status"] == "failed"


def test_other_errors_are_not_taken_for_it(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(trial, "build_model", broken)
    with pytest.raises(RuntimeError, match="illegal") as caught:
        run(a_trial())
    assert "OutOfMemory" not in "".join(traceback.format_exception(caught.value))
