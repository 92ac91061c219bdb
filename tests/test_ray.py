"""Searches on a Ray cluster of two nodes on this machine: the same records, a node lost, and what cannot be had."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from conftest import CONV3X3, REPOSITORY

from stemlab.engine.embedded import EmbeddedRunner
from stemlab.engine.loop import TrialLoop
from stemlab.engine.proposer import TunerProposer
from stemlab.engine.quiet import Quiet
from stemlab.engine.ray_runner import RayRunner
from stemlab.engine.runner import RunnerClosed
from stemlab.engine.searching import Progress, Proposals
from stemlab.engine.slots import Slot
from stemlab.errors import EngineError
from stemlab.records import StudyFolder
from stemlab.running import load_search
from stemlab.spec import EngineSpec, Order

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]

WORK = "simulated_work:sleep"
TRIALS = 24
HERE = EngineSpec(kind="ray", workers=2)


@pytest.fixture(autouse=True, scope="module")
def quick_work():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(str(REPOSITORY / name) for name in ("benchmarks", "tests")))
        patch.setenv("STEMLAB_SIMULATED_SECONDS", "0.5")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield


SIZE = {"num_cpus": 2, "num_gpus": 0, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def cluster(quick_work):
    """A head and a second node, two CPUs each, as they say."""
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={**SIZE, "include_dashboard": False})
    started.second = started.add_node(**SIZE)
    yield started
    started.shutdown()


def on(cluster, **more) -> EngineSpec:
    return EngineSpec(kind="ray", address=cluster.address, **more)


def an_order(**changes) -> Order:
    candidates = load_search(CONV3X3, [f"{name}={value}" for name, value in changes.items()])
    return Order(trial=TunerProposer(candidates).propose().trials[0])


class Counter(Quiet):
    """Counts the epochs of each trial and does something once, behind so many records."""

    def __init__(self, behind=None, act=None):
        self.epochs, self.records, self.behind, self.act = {}, 0, behind, act

    def epoch(self, trial, row):
        self.epochs[trial] = self.epochs.get(trial, 0) + 1

    def finished(self, record, reused):
        self.records += 1
        if self.records == self.behind:
            self.act()


def search(path, runner, reporter=None):
    candidates = load_search(CONV3X3, ["search.concurrency=4", f"search.trials={TRIALS}"])
    folder = StudyFolder(path)
    folder.open_to_write(candidates.study.canonical(), resume=False)
    reporter = reporter or Quiet()
    try:
        source = Proposals(Progress(candidates.study.search, TunerProposer(candidates), reporter.note))
        TrialLoop(source, runner, folder, reporter).run()
    finally:
        folder.close()
    return folder.records()


def essence(records):
    return sorted(record.to_json() for record in records)


def test_a_search_outlives_a_node_and_gives_the_records_of_any_engine(cluster, tmp_path):
    # No retries: that its node was lost is not held against a trial.
    runner = RayRunner(on(cluster), concurrency=4, retries=0, work=WORK)
    assert runner.slots == 4
    reporter = Counter(8, lambda: cluster.remove_node(cluster.second, allow_graceful=False))
    try:
        records = search(tmp_path / "ray", runner, reporter)
    finally:
        cluster.second = cluster.add_node(**SIZE)
    assert [record.status for record in records] == ["ok"] * TRIALS
    assert len({record.trial for record in records}) == TRIALS
    assert set(reporter.epochs) == {record.trial for record in records}
    assert sum(reporter.epochs.values()) > 10 * TRIALS  # some ran again
    assert essence(records) == essence(search(tmp_path / "embedded", EmbeddedRunner([Slot((), 1)] * 4, work=WORK)))


def test_real_training_gives_the_numbers_of_the_embedded_engine(cluster):
    order = an_order(**{"train.epochs": 2, "model.body.depth": 2, "data.validation": 0.4})
    runner, rows = RayRunner(on(cluster, workers=1), concurrency=1), []
    try:
        there = runner.run(order, rows.append)
    finally:
        runner.close()
    embedded = EmbeddedRunner([Slot((), 1)])
    try:
        here = embedded.run(order, lambda row: None)
    finally:
        embedded.close()
    assert there.status == here.status == "ok", there.error
    assert there.curve == here.curve
    assert [row["epoch"] for row in rows] == [1, 2]
    assert there.metrics["test_loss"] == here.metrics["test_loss"]


def test_a_worker_that_dies_again_and_again_is_recorded(cluster):
    runner = RayRunner(on(cluster, workers=1), concurrency=1, retries=1, work="dying_work:die")
    try:
        record = runner.run(an_order(), lambda row: None)
    finally:
        runner.close()
    assert record.status == "failed"
    assert "the worker died" in record.error


def test_work_that_raises_fails_its_trial_alone(cluster):
    runner = RayRunner(on(cluster, workers=1), concurrency=1, work="json:loads")
    try:
        record = runner.run(an_order(), lambda row: None)
    finally:
        runner.close()
    assert record.status == "failed"
    assert "TypeError" in record.error


def test_work_that_cannot_be_imported_is_an_error_of_the_study(cluster):
    runner = RayRunner(on(cluster, workers=1), concurrency=1, work="no_such_module:train")
    try:
        with pytest.raises(EngineError, match=r"3 workers died as they started.*no_such_module"):
            runner.run(an_order(), lambda row: None)
    finally:
        runner.close()


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"gpus_per_trial": 1}, "gpus_per_trial .=1.: no node of the Ray cluster has so many GPUs"),
        ({"gpus": [0]}, "engine.gpus names GPUs of this machine"),
        ({"threads": 3}, "engine.threads .=3.: no node of the Ray cluster has so many CPUs"),
        ({"workers": 5}, "engine.workers .=5.: the Ray cluster has room for 4"),
    ],
)
def test_what_the_cluster_has_not_got_is_said_at_once(cluster, engine, message):
    with pytest.raises(EngineError, match=message):
        RayRunner(on(cluster, **engine), concurrency=4, work=WORK)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "no-such-host.invalid:6379", "127.0.0.1", "ray://127.0.0.1:x"])
def test_an_address_without_a_cluster_is_said_within_seconds(address):
    before = time.monotonic()
    with pytest.raises(EngineError, match=r"engine\.address"):
        RayRunner(EngineSpec(kind="ray", address=address), concurrency=1, work=WORK)
    assert time.monotonic() - before < 40


def listening(process):
    found = []
    for each in [process, *process.children(recursive=True)]:
        try:
            found += [c.laddr.ip for c in each.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        except psutil.NoSuchProcess:
            continue
    return found


def test_a_cluster_of_our_own_listens_on_the_loopback_alone_and_leaves_nothing(monkeypatch):
    monkeypatch.setenv("STEMLAB_SIMULATED_SECONDS", "600")
    monkeypatch.setenv("STEMLAB_SIMULATED_EPOCHS", "6000")
    runner = RayRunner(HERE, concurrency=2, work=WORK)
    trained = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            assert runner.slots == 2
            trial = pool.submit(runner.run, an_order(), lambda row: trained.set())
            assert trained.wait(100)
            folder = Path(psutil.Process(runner._process.pid).cwd())
            family = check_sockets(runner)
        finally:
            runner.close()
        with pytest.raises(RunnerClosed):
            trial.result()
    assert_gone(family)
    assert not folder.exists()


def check_sockets(runner):
    driver = psutil.Process(runner._process.pid)
    family = [driver, *driver.children(recursive=True)]
    interfaces = listening(driver)
    assert len(interfaces) >= 4
    assert {interface.removeprefix("::ffff:") for interface in interfaces} == {"127.0.0.1"}
    assert Path(driver.cwd()).stat().st_mode & 0o077 == 0
    return family


def assert_gone(processes, seconds=100):
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    assert [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []


def test_a_study_killed_outright_takes_its_cluster_along():
    code = (
        "import sys, time; from stemlab.engine.ray_runner import RayRunner; from stemlab.spec import EngineSpec\n"
        f"RayRunner(EngineSpec(kind='ray', workers=2), 2, work={WORK!r}); print('up', flush=True); time.sleep(600)"
    )
    study = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert study.stdout.readline() == b"up\n"
        family = psutil.Process(study.pid).children(recursive=True)
        folder = Path(psutil.Process(study.pid).children()[0].cwd())
        assert len(family) >= 4
    finally:
        study.send_signal(signal.SIGKILL)
        study.wait()
    assert_gone(family)
    study.stdout.close()
    with study.stderr as said:
        assert said.read() == b""  # Ray's own lines are not the user's
    assert not folder.exists()


def test_without_ray_the_error_names_the_extra():
    code = (
        "import sys\n"
        "from importlib import metadata\n"
        "found = metadata.version\n"
        "def version(name):\n"
        "    if name == 'ray': raise metadata.PackageNotFoundError(name)\n"
        "    return found(name)\n"
        "metadata.version = version\n"
        "from stemlab.engine.ray_runner import RayRunner\n"
        "from stemlab.errors import EngineError\n"
        "from stemlab.spec import EngineSpec\n"
        "try: RayRunner(EngineSpec(kind='ray'), 1)\n"
        "except EngineError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout == "engine.kind (=ray): Ray is not installed; pip install 'stemlab[ray]'\n", done.stderr
