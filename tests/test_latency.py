"""Latencies: measured before a trial, kept with it, and nothing to its numbers."""

from __future__ import annotations

import re
import time

import pytest
import torch
from test_checkpoint import a_trial, run

from stemlab.spec import LatencySpec
from stemlab.spec.bound import Bound
from stemlab.train import latency

BOTH = {"latency", "stem_latency"}


def timed(spec, **bounds):
    return spec.replace(latency=LatencySpec.model_validate(bounds))


@pytest.fixture
def fast(monkeypatch):
    """Time each for a moment only: here it is not how long they take that is looked at."""
    monkeypatch.setattr(latency, "SECONDS", 0.02)


def test_latencies_are_among_the_metrics_and_change_nothing_of_the_run(fast):
    plain, _ = run(a_trial(epochs=2))
    record, _ = run(timed(a_trial(epochs=2), batch=3, model={"max": 1e6}))
    assert record.status == "ok"
    assert record.metrics.keys() - plain.metrics.keys() == BOTH
    assert 0 < record.metrics["stem_latency"] < record.metrics["latency"] < 10_000
    assert record.curve == plain.curve
    assert record.metrics["test_loss"] == plain.metrics["test_loss"]


@pytest.mark.parametrize(
    ("bounds", "error"),
    [
        ({"stem": {"max": 1e-4}}, r"stem_latency [\d.]+ ms is above max 0.0001 ms"),
        ({"model": {"min": 1e5, "max": 1e6}}, r"latency [\d.]+ ms is below min 100000 ms"),
        (
            {"model": {"max": 1e-4}, "stem": {"max": 1e-4}},
            r"latency [\d.]+ ms is above max 0.0001 ms; stem_latency [\d.]+ ms is above max 0.0001 ms",
        ),
    ],
)
def test_outside_its_bounds_a_trial_is_not_trained(fast, bounds, error, tmp_path):
    record, epochs = run(timed(a_trial(), **bounds), tmp_path)
    assert (record.status, record.curve, epochs) == ("infeasible", [], [])
    assert record.metrics.keys() == BOTH | {"seconds"}
    assert record.cost["params"] > 0
    assert re.fullmatch(error, record.error)
    assert list(tmp_path.rglob("*")) == []


def test_a_trial_that_goes_on_keeps_what_was_measured(fast, tmp_path, monkeypatch):
    spec = timed(a_trial(epochs=2))
    first, _ = run(spec, tmp_path, until=1)
    monkeypatch.delattr(latency, "measure")  # not again
    whole, _ = run(spec, tmp_path)
    assert {name: whole.metrics[name] for name in BOTH} == {name: first.metrics[name] for name in BOTH}


def test_measuring_touches_no_generator(fast):
    spec, before = a_trial(), torch.get_rng_state()
    latency.measure(spec.model, spec.train, 2, "cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_median_is_that_of_the_call(monkeypatch):
    monkeypatch.setattr(latency, "SECONDS", 0.5)
    pauses = iter([0.1, 0.09] + [0.02] * 1000)  # the first calls are slow, and do not count
    began = time.perf_counter()
    assert 0.02 <= latency._median_seconds(lambda: time.sleep(next(pauses)), "cpu") < 0.08
    assert time.perf_counter() - began < 5


def test_a_slow_model_is_not_timed_for_long(monkeypatch):
    monkeypatch.setattr(latency, "SECONDS", 0.1)
    calls = []
    latency._median_seconds(lambda: (calls.append(0), time.sleep(0.11)), "cpu")
    assert len(calls) <= 3


def test_bounds_are_included():
    bound = Bound(min=1.0, max=2.0)
    for value in (1.0, 2.0):
        assert latency.objection(LatencySpec(model=bound), {"latency": value}) is None
