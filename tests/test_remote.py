"""Machines by SSH: real sshds, real keys, real workers; one of the machines is lost in the middle."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from conftest import CONV3X3
from sshd import NEEDS_SSHD, keygen, starting

import stemlab
from stemlab.engine import machines, manifest, slots, ssh
from stemlab.engine.loop import Job, TrialLoop
from stemlab.engine.quiet import Quiet
from stemlab.engine.runner import RunnerClosed
from stemlab.engine.slots import Slot
from stemlab.engine.ssh_runner import SshRunner
from stemlab.engine.worker_process import Spawned, WorkerProcess
from stemlab.errors import EngineError
from stemlab.records import StudyFolder
from stemlab.running import load_search
from stemlab.spec import EngineSpec, MachineSpec, Order

pytestmark = [pytest.mark.remote, NEEDS_SSHD]

PATIENCE = 120.0


def wait_until(condition, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


@pytest.fixture
def hosts(tmp_path, monkeypatch):
    monkeypatch.setenv("STEMLAB_KNOWN_HOSTS", str(tmp_path / "hosts" / "known_hosts"))
    with starting(tmp_path / "hosts") as start:
        yield start


@pytest.fixture
def log(tmp_path) -> Path:
    file = tmp_path / "shared" / "log"
    file.parent.mkdir()
    file.touch()
    return file


def lines(log: Path) -> list[list]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def interpreter(host, log: Path, **environment: str) -> MachineSpec:
    """A machine whose interpreter knows the tests' work; where it logs to, which only a test can arrange."""
    program = host.folder / "my python"  # a space in the path is nothing special
    home = host.folder / "home"
    home.mkdir(exist_ok=True)
    given = {
        "PYTHONPATH": str(Path(__file__).parent),
        "HOME": str(home),
        "STEMLAB_TEST_LOG": str(log),
        "STEMLAB_TEST_HOST": host.folder.name,
        **environment,
    }
    exports = "".join(f"export {name}='{value}'\n" for name, value in given.items())
    program.write_text(f"#!/bin/sh\n{exports}exec '{sys.executable}' \"$@\"\n")
    program.chmod(0o755)
    return MachineSpec(**host.machine(python=str(program)))


@pytest.fixture
def start():
    """Start a runner whose work is the tests'; close it at the end."""
    runners = []

    def start(specs, notes, **rest):
        runner = SshRunner([(spec, Slot((), 1)) for spec in specs], notes.append, work="remote_work:train", **rest)
        runners.append(runner)
        return runner

    yield start
    for runner in runners:
        runner.close()


def orders(count: int) -> list[Order]:
    """Trials of one stem that differ in their seeds."""
    candidates = load_search(CONV3X3, [f"search.seeds={list(range(count))}"])
    return [Order(trial=trial) for trial in candidates.probe(enough=1).feasible[0].trials]


def run_all(runner: SshRunner, todo: list[Order]) -> list:
    with ThreadPoolExecutor(runner.slots) as pool:
        return list(pool.map(lambda order: runner.run(order, lambda row: None), todo))


def test_trials_run_on_both_machines(hosts, log, start):
    specs, notes = [interpreter(host, log) for host in hosts(2)], []
    todo = orders(8)
    records = run_all(start(specs, notes, keep=log.parent), todo)
    assert [(record.status, record.trial) for record in records] == [("ok", order.trial.digest) for order in todo]
    ended = [line for line in lines(log) if line[0] == "end"]
    assert {line[1] for line in ended} == {"0", "1"}
    assert sorted(line[2] for line in ended) == sorted(order.trial.digest for order in todo)
    states = {Path(line[4]) for line in ended}
    assert len(states) == 2  # each machine has its own, though its name is the same
    assert {folder.stat().st_mode & 0o777 for folder in states} == {0o700}
    assert notes == []


def test_what_a_trial_is_given_is_its_slot(hosts, log):
    [host] = hosts(1)
    place = (interpreter(host, log, OMP_NUM_THREADS="7"), Slot((3, 1), 2))
    runner = SshRunner([place], print, work="remote_work:environment")
    try:
        [record] = run_all(runner, orders(1))
    finally:
        runner.close()
    assert record.metrics == {"OMP_NUM_THREADS": 2.0, "gpus": 31.0}


def test_a_machine_that_is_lost_costs_no_trial(hosts, log, start):
    a, b = hosts(2)
    specs, notes = [interpreter(host, log, STEMLAB_TEST_PAUSE="0.4") for host in (a, b) for _ in range(2)], []
    runner, todo, got = start(specs, notes, pauses=(0, 0.5, 1)), orders(12), []
    thread = threading.Thread(target=lambda: got.extend(run_all(runner, todo)))
    thread.start()
    wait_until(lambda: sum(line[:2] == ["end", "1"] for line in lines(log)) >= 1)
    wait_until(lambda: sum(line[:2] == ["begin", "1"] for line in lines(log)) >= 3)
    b.kill()
    thread.join(PATIENCE)
    assert [(record.status, record.trial) for record in got] == [("ok", order.trial.digest) for order in todo]
    wait_until(lambda: any("left out" in note for note in notes))
    assert sum("left out" in note for note in notes) == 1
    before = sum(line[:2] == ["end", "1"] for line in lines(log))
    assert before + sum(line[:2] == ["end", "0"] for line in lines(log)) == 12  # each trial was finished once


def test_a_machine_that_comes_back_is_used_again(hosts, log, start):
    [host] = hosts(1)
    notes = []
    runner = start([interpreter(host, log, STEMLAB_TEST_PAUSE="0.3")], notes, pauses=(0, 0.5, 1, 2, 4, 8))
    got, todo = [], orders(2)
    thread = threading.Thread(target=lambda: got.extend(run_all(runner, todo)))
    thread.start()
    wait_until(lambda: len(lines(log)) >= 1)
    host.kill()
    time.sleep(0.5)
    host.start()
    thread.join(PATIENCE)
    assert [record.status for record in got] == ["ok", "ok"]
    assert len(notes) == 1
    assert "run again" in notes[0]


def test_when_no_machine_is_left_the_study_ends_and_keeps_what_is_finished(hosts, log, start, tmp_path):
    a, b = hosts(2)
    notes = []
    runner = start([interpreter(host, log) for host in (a, b)], notes, pauses=(0, 0.1))
    todo = orders(6)
    folder = StudyFolder(tmp_path / "study")
    folder.open_to_write({"a": 1}, False, {"a": 1})

    class Rest:
        total = len(todo)
        left = iter(todo)

        def next(self):
            order = next(self.left, None)
            return None if order is None else Job(order.trial, 0, {})

        def done(self, job, record):
            if len(folder.records()) >= 2:
                a.kill()
                b.kill()

    try:
        with pytest.raises(EngineError, match=r"no machine is left: .*cannot be reached"):
            TrialLoop(Rest(), runner, folder, Quiet()).run()
        assert {record.status for record in folder.records()} == {"ok"}
        assert 2 <= len(folder.records()) < 6
    finally:
        folder.close()


def test_a_trial_that_kills_its_worker_is_recorded_as_failed(hosts, log, start):
    specs, notes = [interpreter(host, log) for host in hosts(2)], []
    (log.parent / "die-1").touch()
    records = run_all(start(specs, notes, retries=1), orders(3))
    assert [record.status for record in records] == ["ok", "failed", "ok"]
    assert "SIGKILL (out of memory?)" in records[1].error
    assert sum(line[0] == "begin" for line in lines(log)) == 4
    assert notes == []


def test_a_trial_that_takes_its_machines_down_ends_as_failed(hosts, log, start):
    a, b = hosts(2)
    notes = []
    runner = start([interpreter(host, log) for host in (a, b)], notes, pauses=(0, 0.5, 1, 2, 4, 8))
    falling = {"0": a, "1": b}
    done = threading.Event()

    def fall() -> None:
        seen = 0
        while not done.wait(0.05):
            now = lines(log)
            for line in now[seen:]:
                falling[line[1]].kill()
                falling[line[1]].start()
            seen = len(now)

    thread = threading.Thread(target=fall)
    thread.start()
    try:
        [record] = run_all(runner, orders(1))
    finally:
        done.set()
        thread.join()
    assert record.status == "failed"
    assert "3 times its machine was lost" in record.error
    assert {line[1] for line in lines(log)[:2]} == {"0", "1"}  # not the same one again


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_no_worker_is_left_over_there(hosts, log, start, how):
    both = hosts(2)
    specs, notes = [interpreter(host, log, STEMLAB_TEST_PAUSE="60") for host in both], []
    runner = start(specs, notes)
    todo = orders(2)
    threads = [threading.Thread(target=_expect_closed, args=(runner, order)) for order in todo]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(lines(log)) == 2)
    workers = [psutil.Process(line[3]) for line in lines(log)]
    assert all(worker.is_running() for worker in workers)
    if how == "killed":  # as if this process were: only the connections end
        for worker in runner._workers:
            worker.process.kill()
    else:
        runner.close()
    wait_until(lambda: not any(worker.is_running() for worker in workers))
    runner.close()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    wait_until(lambda: all(len(host.processes()) == 1 for host in both))  # the sshd alone


def _expect_closed(runner: SshRunner, order: Order) -> None:
    with pytest.raises(RunnerClosed):
        runner.run(order, lambda row: None)


def test_a_machine_whose_cable_is_pulled_costs_no_trial(hosts, log, start, monkeypatch):
    a, b = hosts(2)
    if b.namespace is None:
        pytest.skip("a cable can be pulled only as root, where there are network namespaces")
    impatient = {"ServerAliveInterval=15": "ServerAliveInterval=1", "ConnectTimeout=15": "ConnectTimeout=2"}
    monkeypatch.setattr(ssh, "_OPTIONS", [impatient.get(option, option) for option in ssh._OPTIONS])
    specs, notes = [interpreter(host, log, STEMLAB_TEST_PAUSE="0.4") for host in (a, b)], []
    runner, todo, got = start(specs, notes, pauses=(0, 0.5)), orders(4), []
    thread = threading.Thread(target=lambda: got.extend(run_all(runner, todo)))
    thread.start()
    wait_until(lambda: any(line[1] == "1" for line in lines(log)))
    b.cut()
    thread.join(PATIENCE)
    assert [record.status for record in got] == ["ok"] * 4
    wait_until(lambda: any("left out" in note for note in notes))


def test_a_worker_that_hears_nothing_ends_itself(log):
    settings = {"work": "remote_work:train", "keep": None, "environment": {}}
    environment = {"STEMLAB_TEST_LOG": str(log), "STEMLAB_TEST_HOST": "0", "PYTHONPATH": str(Path(__file__).parent)}
    quick = "from stemlab.engine import far; far._SILENCE = 4.0; far.main()"
    worker = WorkerProcess(
        lambda log: Spawned([sys.executable, "-c", quick], log, environment), json.dumps(settings) + "\n"
    )
    try:
        for _ in range(24):
            worker.send("\n")
            time.sleep(0.25)
        with pytest.raises(subprocess.TimeoutExpired):
            worker.process.wait(timeout=0)
        worker.await_ready()
        assert worker.process.wait(timeout=PATIENCE) == -9
    finally:
        worker.close()


# What is looked at before anything runs.


def test_a_good_machine_is_found_good(hosts):
    [host] = hosts(1)
    [machine] = machines.require([MachineSpec(**host.machine())])
    assert machine.problems == ()
    assert machine.notes == ()
    assert machine.versions == manifest.versions()
    assert machine.hardware == manifest.hardware()
    assert abs(machine.clock_offset) < 5
    places = machines.places(EngineSpec(), [machine, machine], 1000)
    assert len(places) == 2 * len(slots.plan(EngineSpec(), 1000))


def refusal(machine: dict) -> str:
    with pytest.raises(EngineError) as refused:
        machines.require([MachineSpec(**machine)])
    return str(refused.value)


def test_an_unknown_host_is_refused(hosts, tmp_path, monkeypatch):
    [host] = hosts(1)
    empty = tmp_path / "known"
    empty.touch()
    monkeypatch.setenv("STEMLAB_KNOWN_HOSTS", str(empty))
    message = refusal(host.machine())
    assert "its host key is not known; nothing was sent there" in message
    assert f"ssh-keyscan -p {host.port} {host.address} >> ~/.ssh/known_hosts" in message
    assert "Accepted" not in (host.folder / "log").read_text()


def test_a_changed_host_key_is_refused(hosts):
    [host] = hosts(1)
    host.kill()
    host.change_host_key()
    host.start()
    message = refusal(host.machine())
    assert "not the one that is known; nothing was sent there" in message
    assert f"ssh-keygen -R '[{host.address}]:{host.port}'" in message
    assert "Accepted" not in (host.folder / "log").read_text()


def test_a_machine_that_wants_a_password_is_refused(hosts):
    [host] = hosts(1, options=("PasswordAuthentication yes", "PubkeyAuthentication no"))
    message = refusal(host.machine())
    assert "stemlab uses no passwords" in message
    assert f"ssh-copy-id -i {host.key}.pub -p {host.port} {host.user}@{host.address}" in message


def test_a_key_that_is_not_known_there_is_refused(hosts, tmp_path):
    [host] = hosts(1)
    assert "ssh-copy-id" in refusal(host.machine(key=str(keygen(tmp_path / "50% other"))))
    assert "there is no key" in refusal(host.machine(key=str(tmp_path / "missing")))


def test_other_reasons_are_told_apart(hosts, tmp_path):
    [host] = hosts(1)
    assert "Connection refused" in refusal(host.machine(port=1))
    assert "there is no interpreter /no/such/python" in refusal(host.machine(python="/no/such/python"))
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\necho 'Unknown option: -P' >&2\nexit 2\n")
    old.chmod(0o755)
    assert "older than Python 3.11" in refusal(host.machine(python=str(old)))
    bare = tmp_path / "bare"  # Python, but none of our packages
    bare.write_text(f"#!/bin/sh\nshift\nexec '{sys.executable}' -I -S \"$@\"\n")
    bare.chmod(0o755)
    message = refusal(host.machine(python=str(bare)))
    assert f"{bare} -m pip install stemlab=={manifest.versions()['stemlab']}" in message
    assert "torch is missing there" in message


def test_values_of_a_spec_are_no_commands(hosts, tmp_path):
    [host] = hosts(1)
    marker = tmp_path / "marker"
    assert "there is no interpreter" in refusal(host.machine(python=f"/x'; touch '{marker}'; '"))
    assert "there is no interpreter" in refusal(host.machine(python=f"/$(touch {marker})"))
    assert not marker.exists()


def test_another_source_of_the_same_version_is_refused(hosts, tmp_path):
    [host] = hosts(1)
    package = tmp_path / "other" / "stemlab"
    shutil.copytree(Path(stemlab.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexport PYTHONPATH='{package.parent}'\nexec '{sys.executable}' \"$@\"\n")
    python.chmod(0o755)
    good = MachineSpec(**host.machine(python=str(python)))
    assert machines.examine(good).problems == ()
    (package / "errors.py").open("a").write("\n# changed\n")
    assert "the same version but another source" in refusal(host.machine(python=str(python)))


def test_several_machines_are_all_told_of(hosts):
    [host] = hosts(1)
    with pytest.raises(EngineError) as refused:
        machines.require([MachineSpec(**host.machine(port=port)) for port in (1, 2)])
    assert len(str(refused.value).splitlines()) == 2


# The doctor.


def doctor(cli, host, *more):
    return cli("doctor", "--machine", f"{host.user}@{host.address}:{host.port}", "--key", host.key, *more)


def test_the_doctor_of_a_good_machine(hosts, cli):
    [host] = hosts(1)
    ran = doctor(cli, host, "--python", sys.executable)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{host.user}@{host.address}:{host.port}" in ran.stdout
    assert f"torch           {manifest.versions()['torch']}" in ran.stdout
    ran = doctor(cli, host, "--python", sys.executable, "--json")
    [found] = json.loads(ran.stdout)["machines"]
    assert found["versions"] == manifest.versions()
    assert found["problems"] == []


def test_the_doctor_of_a_bad_machine(hosts, cli):
    [host] = hosts(1)
    ran = doctor(cli, host, "--python", "/no/such/python")
    assert ran.returncode == 1
    assert "there is no interpreter /no/such/python" in ran.stdout
    assert "Traceback" not in ran.stderr
    assert cli("doctor", "--machine", "nonsense").returncode == 2


# A study over both machines, with NNI's manager here.

SMALL = ("train.epochs=2", "model.body.depth=2", "data.validation=0.4", "search.trials=6", "search.concurrency=2")


class Watcher(Quiet):
    """Keeps the notes, looks at NNI's page, and calls back with the number of finished trials."""

    def __init__(self, finished):
        self.notes, self.count, self.told = [], 0, finished

    def note(self, text):
        self.notes.append(text)

    def finished(self, record, reused):
        self.count += 1
        page = next(note for note in self.notes if "NNI's page" in note).split()[-1]
        assert urllib.request.urlopen(f"{page}api/v1/nni/check-status", timeout=60).status == 200
        self.told(self.count)


def over(*machines: dict) -> str:
    """The change of a study that has it run on machines."""
    return f"engine={json.dumps({'kind': 'nni', 'service': 'remote', 'machines': machines})}"


def essence(folder: Path) -> list[tuple]:
    timeless = ("top1", "loss", "test_top1", "test_loss")
    return sorted(
        (r.proposal, r.trial, r.status, str(r.assignment), *(r.metrics[name] for name in timeless), str(r.curve))
        for r in StudyFolder(folder).records()
    )


@pytest.mark.nni
def test_a_search_through_nnis_manager_loses_a_machine_and_no_trial(hosts, tmp_path):
    a, b = hosts(2)

    def told(count):
        if count == 2:
            assert len(b.processes()) > 1  # it is at work
            b.kill()

    watcher = Watcher(told)
    changes = [*SMALL, over(a.machine(), b.machine())]
    stemlab.search(CONV3X3, tmp_path / "far", changes=changes, reporter=watcher)
    found = StudyFolder(tmp_path / "far").records()
    assert len(found) == len({record.trial for record in found}) == watcher.count == 6
    assert {record.status for record in found} == {"ok"}
    assert sum("run again elsewhere" in note for note in watcher.notes) >= 1
    assert len(a.processes()) == 1  # nothing is left there
    stemlab.search(CONV3X3, tmp_path / "near", changes=[*SMALL, "engine={kind: embedded, workers: 0}"])
    assert essence(tmp_path / "far") == essence(tmp_path / "near")


@pytest.mark.nni
def test_a_search_through_nnis_manager_ends_when_no_machine_is_left(hosts, tmp_path, monkeypatch):
    [host] = hosts(1)
    monkeypatch.setattr(SshRunner.__init__, "__defaults__", (*SshRunner.__init__.__defaults__[:-1], (0, 0.5)))
    watcher = Watcher(lambda count: host.kill())
    with pytest.raises(EngineError, match=r"no machine is left: .*cannot be reached"):
        stemlab.search(CONV3X3, tmp_path / "study", changes=[*SMALL, over(host.machine())], reporter=watcher)
    found = StudyFolder(tmp_path / "study").records()
    assert {record.status for record in found} == {"ok"}
    assert len(found) == watcher.count < 6


@pytest.mark.nni
def test_a_search_does_not_begin_where_a_host_key_changed(hosts, tmp_path):
    a, b = hosts(2)
    b.kill()
    b.change_host_key()
    b.start()
    with pytest.raises(EngineError, match="its host key is not the one that is known"):
        stemlab.search(CONV3X3, tmp_path / "study", changes=[*SMALL, over(a.machine(), b.machine())])
    assert StudyFolder(tmp_path / "study").records() == []
    assert "Accepted" not in (b.folder / "log").read_text()
