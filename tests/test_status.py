"""What a study is doing, seen from outside: status.json, `stemlab status`, `stemlab watch`, a report while it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import CONV3X3
from planted import TINY, plant
from test_report import STUDY, put, record

from stemlab.engine import status_file
from stemlab.engine.quiet import Quiet
from stemlab.engine.status_file import StatusFile
from stemlab.errors import StudyError
from stemlab.records import StudyFolder
from stemlab.spec.files import dump_yaml
from stemlab.status import status

STEMLAB = str(Path(sys.executable).with_name("stemlab"))


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    folder = StudyFolder(tmp_path / "run")
    folder.path.mkdir()
    (folder.path / "study.yaml").write_text(dump_yaml(STUDY))
    return folder


def told(**changes: Any) -> dict[str, Any]:
    """What status.json would say of this process, ten minutes into a study."""
    now = datetime.now(UTC)
    row = {"trial": "t", "proposal": 1, "seed": 0, "epoch": 1, "epochs": 4, "top1": 0.5}
    return {
        "pid": os.getpid(),
        "born": status_file.born(os.getpid()),
        "host": os.uname().nodename,
        "started": (now - timedelta(minutes=10)).isoformat(),
        "updated": now.isoformat(),
        "total": 8,
        "done": 1,
        "trained": 1,
        "running": [row],
        "notes": ["all is well"],
        "page": "http://127.0.0.1:8080/secret",
        **changes,
    }


def content(folder: StudyFolder) -> dict[str, Any]:
    return json.loads((folder.path / "status.json").read_text())


# The file


def test_the_file_says_what_runs(folder):
    with StatusFile(Quiet(), page="http://127.0.0.1:1/x") as reporter:
        reporter.note("before the study has begun")
        reporter.begin(folder.path, 4, 2)
        reporter.started("a", 0, 0)
        reporter.started("b", 1, 7)
        reporter.epoch("b", {"epoch": 2, "epochs": 3, "loss": 1.0, "top1": float("nan")})
        reporter.epoch("gone", {"epoch": 2, "epochs": 3, "loss": 1.0, "top1": 0.5})
        reporter.finished(record(0, 0.9, trial="a"), False)
        wait_until(lambda: (folder.path / "status.json").exists() and content(folder)["done"] == 1)
        found = content(folder)
        assert found["running"] == [
            {"trial": "b", "proposal": 1, "seed": 7, "epoch": 2, "epochs": 3, "top1": None}  # NaN is no JSON
        ]
        assert (found["total"], found["trained"], found["page"]) == (4, 1, "http://127.0.0.1:1/x")
        assert (found["pid"], found["notes"]) == (os.getpid(), ["before the study has begun"])
    assert content(folder)["running"] == []


def test_the_file_is_not_written_at_every_event(folder, monkeypatch):
    written = []
    monkeypatch.setattr(status_file, "write_text", lambda path, text: written.append(json.loads(text)))
    with StatusFile(Quiet()) as reporter:
        reporter.begin(folder.path, 4, 2)
        for number in range(2000):
            reporter.note(str(number))
    assert len(written) <= 4
    assert written[-1]["notes"] == [str(number) for number in range(1980, 2000)]


def test_a_folder_that_cannot_be_written_to_stops_nothing(tmp_path):
    class Counting(Quiet):
        notes = 0

        def note(self, text):
            self.notes += 1

    counting = Counting()
    with StatusFile(counting) as reporter:
        reporter.begin(tmp_path / "not there", 4, 2)
        reporter.note("on and on")
    assert counting.notes == 1


# Status


def test_a_study_runs_while_its_lock_is_held(folder):
    put(folder, record(0, 0.9))
    assert status(folder.path).state == "interrupted"
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    holder = StudyFolder(folder.path)
    holder.open_to_write(STUDY | {"search": STUDY["search"]}, resume=True)
    try:
        assert status(folder.path).state == "running"
    finally:
        holder.close()
    assert status(folder.path).state == "interrupted"
    folder.write_json("manifest.json", {"finished": "2026-11-21T16:00:00+00:00"})
    assert status(folder.path).state == "finished"
    folder.write_json("manifest.json", {"finished": "2026-11-21T16:00:00+00:00", "stopped": "no better one"})
    assert (status(folder.path).state, status(folder.path).why) == ("stopped early", "no better one")
    assert {path: time for path, time in before.items() if path.stat().st_mtime_ns != time} == {}


def test_a_running_study_says_how_long_it_will_take(folder):
    put(folder, record(0, 0.9), trials=8)
    folder.write_json("status.json", told())
    holder = StudyFolder(folder.path)
    holder.open_to_write({**STUDY, "search": {**STUDY["search"], "trials": 8}}, resume=True)
    try:
        found = status(folder.path)
    finally:
        holder.close()
    # One trial and a quarter in ten minutes; seven of eight are left.
    assert found.per_hour == pytest.approx(7.5, rel=0.01)
    assert found.seconds_left == pytest.approx(7 / 7.5 * 3600, rel=0.01)
    assert [row["trial"] for row in found.running] == ["t"]
    assert found.page == "http://127.0.0.1:8080/secret"
    (best,) = found.best
    assert (best["proposal"], best["values"]) == (0, {"top1": 0.9})


@pytest.mark.parametrize("gone", [{"pid": 2**22 + 1}, {"born": 1}])
def test_what_a_dead_process_left_is_not_believed(folder, gone):
    put(folder, record(0, 0.9))
    folder.write_json("status.json", told(**gone))
    found = status(folder.path)
    assert (found.state, found.running, found.per_hour, found.page) == ("interrupted", (), None, None)
    assert found.notes == ("all is well",)  # what was said remains worth reading


@pytest.mark.parametrize(("minutes", "state"), [(0, "running"), (5, "interrupted")])
def test_a_study_on_another_machine_runs_while_its_file_is_fresh(folder, minutes, state):
    updated = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()
    folder.write_json("status.json", told(host="elsewhere", updated=updated))
    assert status(folder.path).state == state


def test_half_written_files_are_no_trouble(folder):
    put(folder, record(0, 0.9), record(1, 0.8))
    whole = folder.records_file.read_bytes()
    folder.records_file.write_bytes(whole[:-40])
    (folder.path / "status.json").write_text('{"pid": ')
    (folder.path / "manifest.json").write_text("")
    found = status(folder.path)
    assert (found.done, found.total, found.state) == (1, 3, "interrupted")


def test_several_objectives_have_a_front(folder):
    objective = [{"maximize": "top1"}, {"minimize": "params"}]
    costs = [{"params": 100}, {"params": 50}, {"params": 70}]
    put(folder, *(record(i, 0.9 - i / 10, cost=cost) for i, cost in enumerate(costs)), objective=objective)
    assert [(row["proposal"], row["values"]) for row in status(folder.path).best] == [
        (0, {"top1": 0.9, "params": 100.0}),
        (1, {"top1": 0.8, "params": 50.0}),
    ]


def test_an_ablation_has_a_status_too(tmp_path):
    plant(tmp_path, {**TINY, "ablate": {"draws": 2, "seeds": [0, 1]}}, keep=lambda arm, draw, seed: draw == 0)
    found = status(tmp_path)
    assert (found.kind, found.done, found.total, found.best) == ("ablation", 4, 8, ())


def test_a_folder_of_no_study_has_no_status(tmp_path, cli):
    with pytest.raises(StudyError, match=r"no study\.yaml"):
        status(tmp_path)
    for command in ("status", "watch"):
        done = cli(command, tmp_path)
        assert done.returncode == 2
        assert "this is not the folder of a study" in done.stderr


def test_the_commands_say_it(folder, cli):
    put(folder, record(0, 0.9), record(1, status="failed"))
    folder.write_json("manifest.json", {"finished": "2026-11-21T16:00:00+00:00", "stopped": "no better one"})
    folder.write_json("status.json", told(pid=2**22 + 1, total=3))
    done = cli("status", folder.path)
    assert done.stdout.splitlines() == [
        "tiny: stopped early: no better one",
        "  2 of 3 trials: 1 ok, 1 failed",
        "  best    #0 top1 0.9: patchify 4, lr=0.001",
        "  note    all is well",
    ]
    assert cli("watch", folder.path).stdout == done.stdout  # it has ended: there is nothing to wait for
    printed = json.loads(cli("status", folder.path, "--json").stdout)
    assert (printed["state"], printed["counts"], printed["done"]) == ("stopped early", {"ok": 1, "failed": 1}, 2)


# A search that runs

SMALL = ("train.epochs=3", "model.body.depth=2", "data.validation=0.4", "search.trials=5", "engine.workers=0")


def wait_until(condition, seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


@pytest.mark.slow
def test_a_running_search_is_watched_and_reported_on_from_outside(tmp_path, cli):
    folder = tmp_path / "study"
    changes = [part for change in SMALL for part in ("--set", change)]
    search = subprocess.Popen([STEMLAB, "search", str(CONV3X3), "--out", str(folder), *changes])
    try:
        wait_until(lambda: (folder / "status.json").exists())
        watchers = [
            subprocess.Popen([STEMLAB, "watch", str(folder), "--every", "0.2"], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        wait_until(lambda: status(folder).done >= 1)
        found = status(folder)
        assert (found.state, found.total) == ("running", 5)
        done = cli("report", folder)  # no lock is in the way
        assert done.returncode == 0, done.stderr
        assert "of 5 planned proposals are in so far" in (folder / "report.html").read_text()
        watchers[0].send_signal(signal.SIGINT)
        assert watchers[0].wait(timeout=120) == 130
        assert search.wait(timeout=600) == 0
        seen, _ = watchers[1].communicate(timeout=120)
        assert watchers[1].returncode == 0
        assert seen.splitlines()[-3:-1] == ["conv3x3: finished", "  5 of 5 trials: 5 ok"]
    finally:
        search.kill()
        search.wait()
    found = status(folder)
    assert (found.state, found.running, found.seconds_left) == ("finished", (), None)
