"""Trials through NNI's manager: none lost, none mis-paired, nobody let in, and nothing left behind."""

from __future__ import annotations

import errno
import http.client
import json
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import nni_work
import psutil
import pytest
from conftest import CONV3X3

from stemlab.engine.embedded import EmbeddedRunner
from stemlab.engine.loop import TrialLoop
from stemlab.engine.manager import launch
from stemlab.engine.manager.runner import NniRunner
from stemlab.engine.manager.service import local
from stemlab.engine.proposer import TunerProposer
from stemlab.engine.quiet import Quiet
from stemlab.engine.runner import RunnerClosed
from stemlab.engine.searching import Progress, Proposals
from stemlab.engine.slots import Slot
from stemlab.errors import EngineError
from stemlab.records import StudyFolder
from stemlab.running import load_search
from stemlab.spec import Order, TrialSpec

TESTS = Path(__file__).parent
CHAOS = shlex.join([sys.executable, "-I", "-S", str(TESTS / "nni_chaos.py")])
SLOT = Slot((), 1)
SMALL = ("train.epochs=2", "model.body.depth=2", "data.validation=0.4", "search.trials=4", "search.concurrency=2")


@pytest.fixture(scope="module")
def base() -> TrialSpec:
    """Some trial; others differ from it by their seeds."""
    return TunerProposer(load_search(CONV3X3)).propose().trials[0]


@pytest.fixture
def started(monkeypatch):
    """Make runners whose hosts find the simulated works, and close them; everything they start bears a mark."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setenv("STEMLAB_MARK", mark)
    runners = []

    def start(slots=2, work="simulate", retries=1, **service) -> NniRunner:
        runners.append(NniRunner(local([SLOT] * slots, work=f"nni_work:{work}", **service), retries))
        runners[-1].mark = mark
        return runners[-1]

    yield start
    for runner in runners:
        runner.close()
        assert not runner._folder.exists()
    assert marked(mark) == []


def marked(mark: str) -> list[psutil.Process]:
    """The processes, but for this one, that were started by those who bear the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            bears = process.environ().get("STEMLAB_MARK") == mark
            if bears and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def run_all(runner, orders, rows=None):
    """Run the orders on as many threads as there are slots; return their records in the same order."""
    rows = {} if rows is None else rows

    def run(order):
        return runner.run(order, rows.setdefault(order.trial.digest, []).append)

    with ThreadPoolExecutor(runner.slots) as pool:
        return list(pool.map(run, orders))


def ask(page: str, path: str = "api/v1/nni/check-status", method: str = "GET", prefix: str | None = None, **headers):
    """The status and the text of a request to the manager. Host is the right one unless given."""
    parts = urlsplit(page)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    base = parts.path if prefix is None else prefix
    try:
        connection.putrequest(method, base + path, skip_host="Host" in headers)
        for name, text in headers.items():
            connection.putheader(name.replace("_", "-"), text)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@pytest.mark.nni
def test_no_trial_is_lost_or_mispaired_whatever_happens_to_it(started, base):
    runner = started(4, retries=30, command=CHAOS)
    orders = [Order(trial=base.replace(seed=seed)) for seed in range(60)]
    rows: dict[str, list] = {}
    checked = {}

    def look():
        wait_until(lambda: runner._records > 5)
        manager = runner._manager
        checked["listens"] = manager._listeners()
        checked["page"] = ask(runner.page, "")
        checked["refused"] = refused(runner.page)

    watcher = threading.Thread(target=look)
    watcher.start()
    records = run_all(runner, orders, rows)
    watcher.join()
    for order, record in zip(orders, records, strict=True):
        digest = order.trial.digest
        assert (record.trial, record.seed) == (digest, order.trial.seed)
        expected = nni_work.value(digest)
        assert (record.status, record.metrics) == (
            ("ok", {"top1": expected}) if expected >= 1 / 6 else ("diverged", {})
        )
        assert {row["top1"] for row in rows[digest]} == {expected}
    # NNI's own page tells the same, however the starts were jittered.
    jobs = json.loads(ask(runner.page, "api/v1/nni/trial-jobs")[1])
    given = {job["trialJobId"]: json.loads(job["hyperParameters"][0])["parameters"]["trial"] for job in jobs}
    finals = [m for m in json.loads(ask(runner.page, "api/v1/nni/metric-data")[1]) if m["type"] == "FINAL"]
    told = [(given[final["trialJobId"]], json.loads(json.loads(final["data"]))) for final in finals]
    ours = [(digest, result["record"]["trial"]) for digest, result in told if _is_ours(result)]
    assert len(jobs) > len(orders)
    assert len(ours) >= len(orders)
    assert all(digest == reported for digest, reported in ours)
    assert {host for host, _ in checked["listens"]} == {"127.0.0.1"}
    assert checked["page"][0] == 200
    assert "Neural Network Intelligence" in checked["page"][1]
    assert set(checked["refused"].values()) == {403}, checked["refused"]


def _is_ours(result) -> bool:
    return isinstance(result, dict) and isinstance(result.get("record"), dict)


def refused(page: str) -> dict[str, int]:
    """What strangers are answered, by what they try."""
    port = urlsplit(page).port
    secret = urlsplit(page).path
    tries = {
        "no secret": ask(page, prefix="/"),
        "a wrong secret": ask(page, prefix="/" + "0" * len(secret.strip("/")) + "/"),
        "a foreign host": ask(page, Host=f"evil.example:{port}"),
        "no port": ask(page, Host="127.0.0.1"),
        "a foreign origin": ask(page, Origin="http://evil.example"),
        "no origin": ask(page, Origin="null"),
        "a file": ask(page, "api/v1/nni/trial-file/../../../../etc/passwd"),
        "a hidden file": ask(page, "logs/%2e%2e/%2e%2e/x"),
        "a proxy": ask(page, "netron/"),
        "an order": ask(page, "api/v1/nni/trial-jobs", "POST"),
        "an end": ask(page, "api/v1/nni/experiment", "DELETE"),
        "a foreign metric": ask(page, "env/local-env/x", "PUT", Origin="http://evil.example"),
        "a tuner without the secret": ask(page, "tuner", prefix="/", **UPGRADE),
        "a foreign tuner": ask(page, "tuner", Origin="http://evil.example", **UPGRADE),
        "a tuner by another name": ask(page, "tuner", Host=f"evil.example:{port}", **UPGRADE),
    }
    return {name: status for name, (status, _) in tries.items()}


@pytest.mark.nni
def test_a_trial_that_kills_its_worker_is_failed_after_its_retries_and_an_import_that_fails_is_an_error(started, base):
    runner = started(1, "die")
    record = runner.run(Order(trial=base), lambda row: None)
    assert record.status == "failed"
    assert record.error.startswith("that was too much")
    assert "the worker died" in record.error
    runner.close()
    with pytest.raises(RunnerClosed):
        runner.run(Order(trial=base), lambda row: None)
    broken = started(1, "no_such_work")
    with pytest.raises(EngineError, match="3 workers died as they started: AttributeError"):
        broken.run(Order(trial=base), lambda row: None)


@pytest.mark.nni
def test_a_manager_that_listens_to_the_network_runs_no_trial(started, base, monkeypatch, tmp_path):
    open_to_all = tmp_path / "open.js"
    open_to_all.write_text(launch._PRELOAD.read_text().replace("'127.0.0.1'", "'0.0.0.0'"))
    monkeypatch.setattr(launch, "_PRELOAD", open_to_all)
    with pytest.raises(EngineError, match=r"listens on 0\.0\.0\.0:\d+; that is not safe"):
        started(1).run(Order(trial=base), lambda row: None)


@pytest.fixture
def study(monkeypatch, base):
    """Start the study of nni_study.py; give its process, what it said, and its mark."""
    mark = uuid.uuid4().hex
    started = []

    def start(trials: int):
        command = [sys.executable, str(TESTS / "nni_study.py"), base.canonical_json(), str(trials)]
        environment = {**os.environ, "STEMLAB_MARK": mark, "PYTHONPATH": str(TESTS)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        started.append(process)
        return process, json.loads(process.stdout.readline()), mark

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


KINDS = {"client": "trial.py", "host": "engine.manager.host", "dispatcher": "-m nni", "manager": "main.js"}


def of_kind(mark: str, kind: str) -> list[psutil.Process]:
    found = []
    for process in marked(mark):
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if KINDS[kind] in line and not line.startswith("/bin/sh"):
            found.append(process)
    return found


def at_work(mark: str) -> bool:
    names = []
    for process in marked(mark):
        try:
            names.append(process.name())
        except psutil.Error:
            continue
    return names.count("sleep") == 2


@pytest.mark.nni
def test_a_study_outlives_all_that_is_killed_in_it_and_leaves_nothing(study):
    process, said, mark = study(6)
    for kind in KINDS:
        wait_until(lambda: at_work(mark))
        of_kind(mark, kind)[0].kill()
        wait_until(lambda: not at_work(mark))
    assert json.loads(process.stdout.readline()) == ["ok"] * 6
    assert process.wait(timeout=60) == 0
    assert marked(mark) == []
    assert not Path(said["folder"]).exists()


def is_closed(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


@pytest.mark.nni
@pytest.mark.parametrize("when", ["starting", "at work"])
def test_nothing_outlives_a_study_that_is_killed(study, when):
    process, said, mark = study(2)
    if when == "at work":
        wait_until(lambda: at_work(mark))
    else:
        wait_until(lambda: of_kind(mark, "manager"))
    process.kill()
    process.wait()
    wait_until(lambda: not marked(mark), 30)
    wait_until(lambda: is_closed(urlsplit(said["page"]).port), 30)


@pytest.mark.nni
def test_the_same_study_has_the_same_records_as_embedded(tmp_path, monkeypatch):
    essences = []
    for name in ("embedded", "nni"):
        candidates = load_search(CONV3X3, SMALL)
        folder = StudyFolder(tmp_path / name)
        folder.open_to_write(candidates.study.canonical(), resume=False)
        keep = tmp_path / name / "trials"
        runner = EmbeddedRunner([SLOT] * 2, keep) if name == "embedded" else NniRunner(local([SLOT] * 2, keep))
        try:
            TrialLoop(
                Proposals(Progress(candidates.study.search, TunerProposer(candidates), Quiet().note)),
                runner,
                folder,
                Quiet(),
            ).run()
        finally:
            folder.close()
        essences.append(sorted(essence(record) for record in folder.records()))
    assert len(essences[0]) == 4
    assert essences[0] == essences[1]


def essence(record) -> tuple:
    metrics = {name: value for name, value in record.metrics.items() if name not in ("seconds", "images_per_second")}
    return record.proposal, record.trial, record.status, str(record.assignment), str(metrics), str(record.curve)


# What needs no manager.


def test_another_version_of_nni_is_refused_with_the_cure(monkeypatch):
    monkeypatch.setattr(launch.metadata, "version", lambda name: "3.1")
    with pytest.raises(EngineError, match=r"NNI 3\.1 is installed.*pip install nni==3\.0"):
        launch.find()


def test_a_manager_that_is_not_as_released_is_refused(monkeypatch, tmp_path):
    (tmp_path / "nni_node").mkdir()
    (tmp_path / "nni_node" / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "nni_node", raising=False)
    with pytest.raises(EngineError, match=r"core/nnimanager\.js lacks"):
        launch.find()


def test_a_port_that_is_taken_is_an_error_that_names_it():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EngineError, match=rf"engine\.port \(={port}\)"):
            launch.free_port(port)


def test_the_experiment_is_the_one_that_nnis_own_api_would_send(tmp_path):
    from nni.experiment import ExperimentConfig
    from nni.experiment.config import CustomAlgorithmConfig

    service = local([SLOT] * 3)(tmp_path)
    manager = launch.Manager.__new__(launch.Manager)
    manager._service, manager._code, manager._experiments = service, tmp_path, tmp_path
    manager._hub = tmp_path / "hub.sock"
    theirs = ExperimentConfig("local")
    theirs.experiment_name = "stemlab"
    theirs.search_space, theirs.trial_concurrency = {}, 3
    theirs.trial_command, theirs.trial_code_directory = service.command, tmp_path
    theirs.experiment_working_directory = tmp_path
    theirs.tuner = CustomAlgorithmConfig(
        class_name="stemlab.engine.manager.relay.Relay",
        code_directory=Path(launch.__file__).parents[3],
        class_args={"address": str(tmp_path / "hub.sock")},
    )
    assert manager.config() == theirs.canonical_copy().json()
