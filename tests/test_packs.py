"""Packs in a study: which trials are run as one, and what comes of each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from test_packed import STEMS, trial

from stemlab import ablate
from stemlab.engine import packs
from stemlab.engine.embedded import EmbeddedRunner
from stemlab.engine.loop import Job
from stemlab.engine.slots import Slot
from stemlab.spec import EngineSpec, Order, SearchSpec
from stemlab.spec.packs import order_key

TINY = {"dim": 16, "depth": 1, "heads": 1, "mlp_ratio": 1, "class_token": False}


def tiny(seed=0, **rest):
    return trial(rest.pop("stem", "patchify"), seed=seed, body=TINY, epochs=1, warmup_epochs=0.0, **rest)


@given(
    st.lists(st.sampled_from([{}, {"stem": "conv"}, {"batch_size": 16}, {"optimizer": "lamb"}]), max_size=20),
    st.integers(1, 6),
)
def test_packs_stand_together_and_nothing_is_lost(kinds, most):
    jobs = [Job(tiny(seed, **kind), seed, {}) for seed, kind in enumerate(kinds)]
    ordered = packs.together(jobs, most)
    assert sorted(job.proposal for job in ordered) == list(range(len(jobs)))
    numbers = [job.pack for job in ordered]
    assert numbers == sorted(numbers)
    for number in set(numbers):
        members = [job for job in ordered if job.pack == number]
        keys = {order_key(job.order) for job in members}
        assert len(keys) == 1
        assert len(members) <= (1 if keys == {None} else most)
        assert [job.proposal for job in members] == sorted(job.proposal for job in members)


def study(name, **engine):
    options = {"patchify": STEMS["patchify"], "conv": STEMS["conv"]}
    return {
        "name": name,
        "model": {"stem": {"choice": options}, "body": TINY, "image_size": 32, "classes": 10},
        "data": {"name": "digits"},
        "train": {"epochs": 1, "warmup_epochs": 0.0, "lr": {"log_uniform": [1e-4, 1e-3]}},
        "ablate": {"draws": 2, "seeds": [0, 1], "outcome": "loss"},
        "engine": engine,
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The records of a study whose trials run one by one."""
    folder = tmp_path_factory.mktemp("alone")
    return ablate(study("alone", workers=0, pack="never"), folder / "runs", reuse=False).folder.records()


def outcomes(records):
    return {(r.proposal, r.seed): (r.trial, r.status, pytest.approx(r.metrics["test_loss"], rel=1e-3)) for r in records}


@pytest.mark.parametrize("workers", [0, 2])
def test_an_ablation_of_packs_has_the_records_of_one_without(tmp_path, alone, workers):
    done = ablate(study("packed", workers=workers, pack=4), tmp_path / "runs", reuse=False)
    records = done.folder.records()
    assert [record.metrics["packed"] for record in records] == [4] * 8
    assert outcomes(records) == outcomes(alone)
    assert all(len(record.curve) == 1 for record in records)
    assert "4 trials at a time" in json.loads((tmp_path / "runs" / "manifest.json").read_text())["packs"]


def test_a_study_that_was_cut_in_a_pack_goes_on(tmp_path, alone):
    file = study("cut", workers=0, pack=4)
    ablate(file, tmp_path / "runs", reuse=False)
    records = tmp_path / "runs" / "records.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join(lines[:2]))
    done = ablate(file, tmp_path / "runs", resume=True, reuse=False)
    assert len(done.folder.records()) == 8
    assert outcomes(done.folder.records()) == outcomes(alone)
    assert done.folder.records()[2].metrics["packed"] == 2  # what the cut left of the first pack


def test_a_worker_trains_a_pack_and_tells_of_each_epoch():
    runner, rows = EmbeddedRunner([Slot((), 1)]), []
    orders = [Order(trial=tiny(seed)) for seed in range(2)]
    try:
        records = runner.run_pack(orders, lambda member, row: rows.append((member, row["epoch"])))
        other = runner.run_pack([orders[0], Order(trial=tiny(stem="conv"))], lambda member, row: None)
    finally:
        runner.close()
    assert [(record.trial, record.status) for record in records] == [(o.trial.digest, "ok") for o in orders]
    assert sorted(rows) == [(0, 1), (1, 1)]
    # What cannot be one is done one by one.
    assert [("packed" in record.metrics, record.status) for record in other] == [(False, "ok")] * 2


@pytest.fixture
def dying(monkeypatch):
    """Work that ends its process."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    return "dying_work:die"


def test_members_are_run_again_as_often_as_a_trial_is(dying):
    runner = EmbeddedRunner([Slot((), 1)], retries=1, work=dying)
    try:
        records = runner.run_pack([Order(trial=tiny(seed)) for seed in range(2)], lambda member, row: None)
    finally:
        runner.close()
    assert [record.status for record in records] == ["failed"] * 2
    assert all("exit code 3" in record.error for record in records)


def test_the_choice_is_measured_once(monkeypatch, tmp_path):
    monkeypatch.setenv("STEMLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(packs, "_SHORT", 0)
    trials = [tiny(seed) for seed in range(8)]
    runner = EmbeddedRunner([Slot((), 1)] * 2)
    try:
        first = packs.choose(EngineSpec(), trials, runner)
        monkeypatch.setattr(runner, "everywhere", lambda *_: pytest.fail("measured again"))
        assert packs.choose(EngineSpec(), trials, runner) == first
        assert packs.choose(EngineSpec(pack="never"), trials, runner) == packs.Choice()
        assert packs.choose(EngineSpec(pack=3), trials, runner) == packs.Choice(3)
        assert packs.choose(EngineSpec(pack=64), trials, runner) == packs.Choice(4)  # no worker is left idle
        assert packs.choose(EngineSpec(), trials[:7], runner) == packs.Choice()  # soon over
    finally:
        runner.close()
    assert first.members in (1, 4)
    assert (first.gain is None) == (first.members == 1)
    assert len(list((tmp_path / "data").glob("pack-*"))) == 1


def test_workers_that_die_choose_nothing(monkeypatch, dying):
    monkeypatch.setattr(packs, "_SHORT", 0)
    runner = EmbeddedRunner([Slot((), 1)])
    monkeypatch.setattr(packs, "_WORK", dying)
    try:
        assert packs.choose(EngineSpec(), [tiny(seed, lr=1e-5) for seed in range(8)], runner) == packs.Choice()
    finally:
        runner.close()


@pytest.mark.parametrize("kind", ["nni", "ray"])
def test_other_engines_have_no_packs(kind):
    with pytest.raises(ValidationError, match="only the engine embedded has pack"):
        EngineSpec(kind=kind, pack=4)


def test_a_search_packs_what_its_number_says_and_leaves_no_slot_idle():
    file = study("search", pack=8)
    del file["ablate"]
    file["search"] = {"concurrency": 2, "seeds": [0, 1, 2]}
    made = SearchSpec.model_validate(file)
    assert [packs.of_search(made, slots) for slots in (1, 2, 6)] == [6, 3, 1]
    assert packs.of_search(made.replace(engine=EngineSpec()), 1) == 1
