"""Fifty kills at random moments, on every engine: nothing finished is lost or doubled, and nothing is left behind.

Also what disks and clocks do. `pytest -m faults` runs the kills.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from conftest import CONV3X3

STEMLAB = str(Path(sys.executable).with_name("stemlab"))
MARK = "STEMLAB_TEST_FAULTS"
SMALL = (
    "train.epochs=1", "train.warmup_epochs=0", "model.body.depth=2", "data.validation=0.4", "data.test=0.3",
    "search.concurrency=2", "engine.retries=50",
)  # fmt: skip
TRIALS = 10

VICTIMS = {
    "embedded": {"worker or their server": ("stemlab.engine.fork_server",)},
    "nni": {
        "trial": ("stemlab.engine.manager.trial",),
        "worker": ("stemlab.engine.manager.host",),
        "manager": ("nni_node",),
    },
    "ray": {"worker": ("ray::",), "node": ("raylet",)},
}
"""What there is to kill beside the study's own process, and the words by which it is found on command lines."""

ROUNDS = {"embedded": 24, "nni": 16, "ray": 10}
SPAN = {"embedded": 12.0, "nni": 16.0, "ray": 30.0}
"""Within how many seconds of its start, or of the kill before, a search is hit: it starts in a fraction of that."""


@dataclass
class Runs:
    """The processes of a study, found by a mark in their environment, whoever started them."""

    mark: str

    def all(self) -> list[psutil.Process]:
        wanted = f"{MARK}={self.mark}".encode()
        found = []
        for process in psutil.process_iter():
            try:
                environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
                if wanted in environment and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (OSError, psutil.Error):
                continue
        return found

    def named(self, words: tuple[str, ...]) -> list[psutil.Process]:
        found = []
        for process in self.all():
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if any(word in line for word in words):
                found.append(process)
        return found


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def wait_until(condition, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain: {what}"
        time.sleep(0.1)


def lines(folder: Path) -> list[dict]:
    file = folder / "records.jsonl"
    whole = file.read_bytes().rpartition(b"\n")[0].splitlines() if file.exists() else []
    return [json.loads(line) for line in whole]


def essence(folder: Path) -> list[tuple]:
    return sorted(
        (r["proposal"], r["trial"], r["status"], r["metrics"]["top1"], r["metrics"]["test_loss"]) for r in lines(folder)
    )


def command(engine: str, folder: Path, seed: int, resume: bool, trials: int = TRIALS) -> list[str]:
    made = [STEMLAB, "search", str(CONV3X3), "--out", str(folder), "--engine", engine, "--trials", str(trials)]
    for change in (*SMALL, f"search.tuner_seed={seed}"):
        made += ["--set", change]
    return [*made, "--resume"] if resume else made


@pytest.mark.faults
@pytest.mark.parametrize("engine", ROUNDS)
def test_kills_at_random_moments(tmp_path, engine):
    if engine == "ray":
        pytest.importorskip("ray")
    seed = int(os.environ.get("STEMLAB_FAULTS_SEED", "20261121"))
    rng = random.Random(f"{seed} {engine}")
    runs = Runs(f"{engine}-{os.getpid()}")
    environment = {**os.environ, MARK: runs.mark}
    log = tmp_path / "log"
    study = 0
    folder = tmp_path / "study-0"
    process: subprocess.Popen | None = None
    finished: dict[str, str] = {}
    print(f"faults: engine {engine}, STEMLAB_FAULTS_SEED={seed}")
    try:
        kills = 0
        while kills < ROUNDS[engine]:
            if process is None:
                resume = (folder / "study.yaml").exists()
                with log.open("ab") as out:
                    process = subprocess.Popen(
                        command(engine, folder, study, resume), stdout=out, stderr=out, env=environment, cwd=tmp_path
                    )
            moment = rng.uniform(0.2, SPAN[engine])
            kind = rng.choice([*VICTIMS[engine], "study", "all"])
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moment)
            if process.poll() is None:
                kills += 1
                print(f"  kill {kills}: {kind} after {moment:.2f} s, {len(lines(folder))} records")
                victims = runs.named(VICTIMS[engine][kind]) if kind in VICTIMS[engine] else runs.all()
                if kind == "study":
                    victims = [psutil.Process(process.pid)]
                kill(victims if kind == "all" else rng.sample(victims, min(1, len(victims))))
                if kind in ("study", "all"):
                    process.wait(30)
            # What was on record stays, as it was.
            now = {f"{r['proposal']} {r['trial']}": json.dumps(r) for r in lines(folder)}
            assert finished.items() <= now.items()
            finished = now
            if process.poll() is not None:
                wait_until(lambda: not runs.all(), 60, f"processes are left: {[p.cmdline() for p in runs.all()]}")
                whole = process.returncode == 0
                # A study whose engine died may end, with a word of it; a kill of ours ends it without one.
                assert process.returncode in (0, 1, -signal.SIGKILL), log.read_text()[-3000:]
                process = None
                if whole:
                    check(tmp_path, folder, study)
                    study, finished = study + 1, {}
                    folder = tmp_path / f"study-{study}"
        if process is not None:
            process.kill()
            process.wait(30)
        wait_until(lambda: not runs.all(), 60, "processes are left at the end")
        if (folder / "study.yaml").exists():
            resumed = subprocess.run(
                command(engine, folder, study, True), capture_output=True, text=True, env=environment, timeout=600
            )
            assert resumed.returncode == 0, resumed.stderr
            check(tmp_path, folder, study)
            wait_until(lambda: not runs.all(), 60, "processes are left behind the last study")
    except BaseException:
        print(log.read_text()[-6000:])
        raise
    finally:
        kill(runs.all())


def check(tmp_path: Path, folder: Path, seed: int) -> None:
    """The records of a study that was killed equal those of one that was not."""
    found = essence(folder)
    assert len(found) == len(set(found)) == TRIALS
    unbroken = tmp_path / f"unbroken-{seed}"
    done = subprocess.run(command("embedded", unbroken, seed, False), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert found == essence(unbroken)
    assert (folder / "report.html").exists()
    assert not (folder / "records.damaged").exists() or (folder / "records.damaged").stat().st_size > 0


# Disks and clocks.


def run(folder: Path, *extra: str, **options) -> subprocess.CompletedProcess:
    made = [*command("embedded", folder, 0, False, trials=3), *extra]
    return subprocess.run(made, capture_output=True, text=True, timeout=300, **options)


@pytest.mark.faults
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="only root can mount a small disk")
def test_a_full_disk_loses_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        filler = disk / "filler"
        filler.write_bytes(b"x" * 200 * 1024)
        full = run(disk / "study")
        assert full.returncode == 1, full.stderr
        assert "No space left on device" in full.stderr
        assert "Traceback" not in full.stderr
        before = lines(disk / "study")
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        filler.unlink()
        resumed = run(disk / "study", "--resume")
        assert resumed.returncode == 0, resumed.stderr
        assert lines(disk / "study")[: len(before)] == before
        assert len(lines(disk / "study")) == 3
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


@pytest.mark.faults
def test_a_clock_that_jumps_changes_nothing(tmp_path):
    """The wall clock leaps by days, either way, at every reading."""
    (tmp_path / "sitecustomize.py").write_text(
        "import random, time\n"
        "real, rng = time.time, random.Random(0)\n"
        "time.time = lambda: real() + rng.uniform(-1e6, 1e6)\n"
    )
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    jumping = run(tmp_path / "jumping", "--set", "search.stop={max_hours: 5.0}", env={**os.environ, "PYTHONPATH": path})
    assert jumping.returncode == 0, jumping.stderr
    steady = run(tmp_path / "steady")
    assert steady.returncode == 0
    assert essence(tmp_path / "jumping") == essence(tmp_path / "steady")
    manifest = json.loads((tmp_path / "jumping" / "manifest.json").read_text())
    assert 0 < manifest["seconds"] < 300
    assert manifest["stopped"] is None


@pytest.mark.faults
def test_two_searches_started_on_one_folder(tmp_path):
    first = subprocess.Popen([*command("embedded", tmp_path / "study", 0, False)], stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: (tmp_path / "study" / "study.yaml").exists(), 60, "the first search to start")
        second = run(tmp_path / "study", "--resume", "--trials", str(TRIALS))
        assert second.returncode == 2
        assert "another study is writing to this folder" in second.stderr
        first.communicate(timeout=300)
        assert first.returncode == 0
        assert len(lines(tmp_path / "study")) == TRIALS
    finally:
        first.kill()
        first.wait()
