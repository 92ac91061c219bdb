"""One trial in two processes (gloo, on the CPU): the numbers of one process, and no process left, whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest
import torch
from test_checkpoint import a_trial, numbers, run, same, state
from test_micro_batch import without_batch_norm

from stemlab.engine.slots import PROCESSES
from stemlab.engine.work import perform, train
from stemlab.errors import StemlabError
from stemlab.spec import LatencySpec, Order
from stemlab.train import Saving, run_distributed, team
from stemlab.train.ranks import Ranks

pytestmark = pytest.mark.slow


def together(spec, keep=None, progress=None, **order):
    rows = []
    order = Order(trial=spec, **order)
    record = run_distributed(order, progress or rows.append, 2, Saving(keep) if keep else None, device="cpu")
    return record, [row["epoch"] for row in rows]


def children():
    return [p for p in psutil.Process().children(recursive=True) if "stemlab.train.distributed" in p.cmdline()]


@pytest.fixture(autouse=True)
def none_left(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    assert children() == []


def test_two_processes_come_to_the_numbers_of_one():
    # 1077 images in batches of 101: the two shares of a batch differ.
    spec = without_batch_norm(
        batch_size=101, epochs=2, clip_grad=1.0, probes={"gradients": True, "spikes": True, "tokens": True}
    )
    one, _ = run(spec)
    two, epochs = together(spec)
    assert (two.status, epochs) == ("ok", [1, 2])
    assert two.metrics.keys() == one.metrics.keys()
    for row, expected in zip(two.curve, one.curve, strict=True):
        assert row == pytest.approx(expected, rel=1e-3, abs=0.003)  # the accuracy: one image of 360
    assert two.metrics["test_loss"] == pytest.approx(one.metrics["test_loss"], rel=1e-3)
    assert two.probes["token_similarity"] == pytest.approx(one.probes["token_similarity"], rel=1e-3)


def test_two_processes_pause_and_go_on_with_batch_norms(tmp_path):
    spec = a_trial(epochs=2, batch_size=200)
    never, _ = together(spec)
    first, epochs = together(spec, tmp_path, until=1)
    assert (first.status, first.until, epochs) == ("pruned", 1, [1])
    kept = state(tmp_path, spec)
    whole, epochs = together(spec, tmp_path)
    assert epochs == [2]
    assert numbers(whole) == numbers(never)
    # One process is another thing: it begins anew.
    run(spec, tmp_path, until=1)
    assert not same(state(tmp_path, spec), kept)


def test_none_trains_where_the_first_finds_the_model_too_slow():
    slow = a_trial().replace(latency=LatencySpec.model_validate({"model": {"max": 1e-6}}))
    record, epochs = together(slow)
    assert (record.status, epochs) == ("infeasible", [])


def test_the_death_of_one_ends_the_trial_with_a_record(monkeypatch):
    monkeypatch.setenv(PROCESSES, "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    spec = a_trial(epochs=1000, batch_size=64)

    def kill_one(row):
        victims = [p for p in children() if p.cmdline()[4] == "1"]
        for process in victims:
            process.kill()

    began = time.monotonic()
    record = perform(train, Order(trial=spec), kill_one)
    assert record.status == "failed"
    assert "process 2 of 2 was killed by SIGKILL" in record.error
    assert time.monotonic() - began < 500


def test_none_outlives_the_one_that_started_them(tmp_path):
    order = tmp_path / "order.json"
    order.write_text(Order(trial=a_trial(epochs=1000, batch_size=64)).canonical_json())
    program = (
        "import json, sys\nfrom pathlib import Path\n"
        "from stemlab.spec import Order\nfrom stemlab.train import run_distributed\n"
        "order = Order.model_validate(json.loads(Path(sys.argv[1]).read_text()))\n"
        "run_distributed(order, lambda row: print(row['epoch'], flush=True), 2, device='cpu')"
    )
    starter = subprocess.Popen([sys.executable, "-c", program, str(order)], stdout=subprocess.PIPE, text=True)
    assert starter.stdout.readline() == "1\n"
    ranks = psutil.Process(starter.pid).children(recursive=True)
    assert len(ranks) == 2
    # They talk over the loopback interface alone.
    listening = [c.laddr.ip for p in ranks for c in p.net_connections() if c.status == psutil.CONN_LISTEN]
    assert set(listening) <= {"127.0.0.1", "::1"}
    starter.kill()
    starter.wait()
    starter.stdout.close()
    assert psutil.wait_procs(ranks, timeout=60)[1] == []


FAULTY = """
import os, sys, torch
from stemlab.builders import build_model
from stemlab.train import distributed, trial

def build(*arguments, **options):
    model = build_model(*arguments, **options)
    def look(_, given):
        if os.environ["FAULT"] == "raise" and sys.argv[1] == "1":
            raise ValueError("a broken layer")
        if os.environ["FAULT"] == "memory" and sys.argv[1] == "1" and len(given[0]) > int(os.environ["ROOM"]):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
    model.register_forward_pre_hook(look)
    return model

trial.build_model = build
distributed.main()
"""


@pytest.fixture
def fault(tmp_path, monkeypatch):
    (tmp_path / "faulty_rank.py").write_text(FAULTY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(team, "_MODULE", "faulty_rank")

    def give(kind, room=0):
        monkeypatch.setenv("FAULT", kind)
        monkeypatch.setenv("ROOM", str(room))

    return give


def test_one_that_has_too_little_memory_starts_all_anew(fault, tmp_path):
    fault("memory", 60)
    spec = without_batch_norm(batch_size=200, epochs=1, warmup_epochs=0)
    record, _ = together(spec)
    assert record.metrics["micro_batch"] == 50
    assert record.curve[0] == pytest.approx(run(spec)[0].curve[0], rel=1e-3, abs=0.003)


def test_one_that_breaks_says_why(fault):
    fault("raise")
    with pytest.raises(StemlabError, match="a broken layer"):
        together(a_trial(epochs=1, warmup_epochs=0))


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(StemlabError, match=r"train.batch_size \(=1\) is less than one image for each of 2 GPUs"):
        together(a_trial(batch_size=1))


def test_shares_are_all_of_a_batch():
    batch = torch.arange(11)
    shares = [Ranks(rank, 3).share(batch) for rank in range(3)]
    assert sorted(torch.cat(shares).tolist()) == list(range(11))
    assert torch.equal(Ranks().share(batch), batch)
