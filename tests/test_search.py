"""Real searches through the command line: records, determinism, interrupts, and what is left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from conftest import CONV3X3

import stemlab

STEMLAB = str(Path(sys.executable).with_name("stemlab"))
SMALL = ("--set", "train.epochs=2", "--set", "model.body.depth=2", "--set", "data.validation=0.4", "--trials", "6")


def records(folder: Path) -> list[dict]:
    file = folder / "records.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def essence(folder: Path) -> dict[str, tuple]:
    """What must be the same on every run of a study: proposals, assignments, results; not the seconds."""
    return {
        record["trial"]: (
            record["proposal"],
            record["status"],
            json.dumps(record["assignment"], sort_keys=True),
            *(record["metrics"][name] for name in ("top1", "loss", "test_top1", "test_loss")),
            json.dumps(record["curve"]),
        )
        for record in records(folder)
    }


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    """One small search, run to its end."""
    folder = tmp_path_factory.mktemp("unbroken") / "study"
    command = [STEMLAB, "search", str(CONV3X3), "--out", str(folder), "--json", *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (folder.parent / "stdout").write_text(done.stdout)
    return folder


@pytest.fixture
def start(tmp_path):
    """Start the same search in the background; whatever is left of it is killed after the test."""
    started: list[psutil.Process] = []

    def run(*extra: str) -> tuple[subprocess.Popen, Path]:
        folder = tmp_path / "study"
        command = [STEMLAB, "search", str(CONV3X3), "--out", str(folder), *SMALL, *extra]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(psutil.Process(process.pid))
        return process, folder

    yield run
    for process in started:
        if process.is_running():
            process.kill()


def wait_until(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def test_a_search_leaves_a_whole_study_folder(unbroken):
    names = {path.name for path in unbroken.iterdir()} - {".lock"}
    assert names == {
        *("study.yaml", "manifest.json", "status.json", "records.jsonl", "trials", "best.json"),
        *("report.html", "summary.md", "ranking.csv"),
    }
    rows = records(unbroken)
    assert len(rows) == 6
    assert {path.name for path in (unbroken / "trials").iterdir()} == {row["trial"] for row in rows}
    assert [row["seed"] for row in rows] == [0] * 6
    for row in rows:
        assert row["status"] == "ok"
        assert abs(row["match"]["error"]) <= 0.005
        assert row["metrics"]["top1"] + row["metrics"]["top1_error"] == pytest.approx(1)
        assert len(row["curve"]) == 2
        assert row["cost"]["flops"] == stemlab.cost(row["model"]).flops

    printed = json.loads((unbroken.parent / "stdout").read_text())
    best = max(rows, key=lambda row: (row["metrics"]["top1"], -row["proposal"]))
    assert printed["best"] == best["model"] == json.loads((unbroken / "best.json").read_text())
    study = stemlab.Study(unbroken)
    assert len(study.records) == 6
    assert study.best.digest == stemlab.load(best["model"]).digest


@pytest.mark.slow
def test_the_resolved_study_runs_again_with_the_same_records(unbroken, cli, tmp_path):
    done = cli("search", unbroken / "study.yaml", "--out", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    assert essence(tmp_path / "again") == essence(unbroken)
    assert yaml.safe_load((tmp_path / "again" / "study.yaml").read_text()) == yaml.safe_load(
        (unbroken / "study.yaml").read_text()
    )


@pytest.mark.slow
def test_a_second_run_takes_the_next_folder_and_gives_the_same(cli, tmp_path):
    quick = ("--trials", "2", "--set", "train.epochs=1", "--set", "train.warmup_epochs=0", "--set", "engine.workers=0")
    for _ in range(2):
        done = cli("search", CONV3X3, *quick)
        assert done.returncode == 0, done.stderr
    first, second = tmp_path / "runs" / "conv3x3", tmp_path / "runs" / "conv3x3-2"
    assert essence(first) == essence(second)
    assert len(records(second)) == 2
    before = (second / "records.jsonl").read_bytes()
    done = cli("search", CONV3X3, *quick, "--resume")
    assert done.returncode == 0, done.stderr
    assert "was recorded before" in done.stderr
    assert (second / "records.jsonl").read_bytes() == before
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"conv3x3", "conv3x3-2"}


def test_best_json_builds(unbroken, cli):
    done = cli("build", unbroken / "best.json", "--json")
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout)
    assert built["built_params"] == built["cost"]["params"]


def test_the_calling_process_gives_the_same_results_as_a_worker(unbroken, tmp_path):
    changes = [SMALL[i + 1] for i in range(0, 6, 2)]
    folder = tmp_path / "inline"
    stemlab.search(CONV3X3, folder, changes=[*changes, "search.trials=6", "engine.workers=0"])
    assert essence(folder) == essence(unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("sent", ["one SIGINT", "two SIGINTs", "SIGTERM", "SIGKILL"])
def test_an_interrupted_search_leaves_no_process_and_resumes(sent, unbroken, start):
    process, folder = start()
    wait_until(lambda: len(records(folder)) >= 2)
    family = psutil.Process(process.pid).children(recursive=True)
    assert family, "the workers should still be at work"
    # No port is open while the search runs.
    for member in [psutil.Process(process.pid), *family]:
        assert not [c for c in member.net_connections() if c.status == psutil.CONN_LISTEN]

    number = {"SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL}.get(sent, signal.SIGINT)
    process.send_signal(number)
    if sent == "two SIGINTs":
        time.sleep(0.1)
        process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    wait_until(lambda: all_gone(family), 10)
    assert "Traceback" not in stderr
    if sent in ("one SIGINT", "SIGTERM"):
        assert process.returncode == 130
        assert f"--out {folder}" in stderr.splitlines()[-1]
        assert stderr.splitlines()[-1].endswith("--resume")
        assert (folder / "report.html").exists()
    elif sent == "two SIGINTs":
        assert process.returncode == 130

    kept = records(folder)
    assert 2 <= len(kept) < 6
    again, _ = start("--resume")
    _, stderr = again.communicate(timeout=300)
    assert again.returncode == 0, stderr
    assert records(folder)[: len(kept)] == kept
    assert len(records(folder)) == 6
    assert essence(folder) == essence(unbroken)


def test_divergence_is_a_result(tmp_path):
    changes = ["train.optimizer=sgd", "train.lr=1.0e+6", "train.warmup_epochs=0", "train.epochs=2", "search.trials=2"]
    study = stemlab.search(CONV3X3, tmp_path / "study", changes=[*changes, "engine.workers=0"])
    assert [record.status for record in study.trials] == ["diverged", "diverged"]
    assert all("loss" in record.error for record in study.trials)
    assert study.best is None
    assert "diverged" in (tmp_path / "study" / "report.html").read_text()


@pytest.mark.slow
def test_seeds_are_an_axis_of_their_own(tmp_path):
    changes = ["search.seeds=[3, 5]", "search.trials=2", "train.epochs=1", "train.warmup_epochs=0"]
    study = stemlab.search(CONV3X3, tmp_path / "study", changes=[*changes, "engine.workers=0"])
    assert sorted((r.proposal, r.seed) for r in study.trials) == [(0, 3), (0, 5), (1, 3), (1, 5)]
    assert len({r.trial for r in study.trials}) == 4
    by_seed = {r.seed: r.metrics["loss"] for r in study.trials if r.proposal == 0}
    assert by_seed[3] != by_seed[5]


@pytest.mark.slow
@pytest.mark.parametrize("records_before", [0, 1])
def test_a_killed_fork_server_costs_nothing(start, records_before):
    """It is killed as it starts, or while its workers train; a worker that is killed then is forked from another."""
    process, folder = start("--set", "train.epochs=12")
    me = psutil.Process(process.pid)
    wait_until(lambda: me.children() and len(records(folder)) >= records_before)
    (server,) = me.children()
    workers = server.children()
    server.kill()
    for worker in workers[:1]:
        worker.kill()
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert [row["status"] for row in records(folder)] == ["ok"] * 6
    assert all_gone(workers)


@pytest.mark.slow
def test_workers_that_cannot_start_end_the_search_with_their_reason(cli, tmp_path):
    # A timm that does not import: found before the real one by every worker, and by nothing else.
    broken = tmp_path / "path" / "timm"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('timm is broken here')")
    done = cli("search", CONV3X3, "--out", "out", env={"PYTHONPATH": str(broken.parent)})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: 3 workers died as they started (exit code 1)")
    assert "timm is broken here" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["doctor"], ["build", "vit_c_1gf"]])
def test_any_command_can_be_interrupted(command):
    process = subprocess.Popen([STEMLAB, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    me = psutil.Process(process.pid)
    wait_until(lambda: sum(me.cpu_times()[:2]) > 0.7)  # in the middle of importing torch, however slow the machine
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
