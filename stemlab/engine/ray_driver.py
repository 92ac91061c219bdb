"""The process that speaks to Ray for a study; nothing else imports ray.

Ray ends the process that lost its cluster, so that process is not the study's: it is started by ray_runner, gets orders
on stdin and answers with events on stdout, one JSON document a line. At the end of stdin it stops all trials, and the
cluster if it started one.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import secrets
import shutil
import socket
import sys
import threading
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn, TextIO

from ..errors import EngineError
from ..spec import EngineSpec
from . import slots
from .ray_worker import RayWorker

_STARTS = 3
"""How many workers may die in turn before they are ready; one may be killed by chance, three are a fault."""

_MOVES = 3
"""How often a trial is run again whose node died, beside the retries of trials whose worker died."""

_PATIENCE = 300.0
"""Seconds without a single worker until the study ends: Ray itself would wait for ever for a node that has room."""

_EXPLAINED = 60.0
"""Seconds for Ray to find out why a worker does not answer; it gives up on a silent node after about half a minute."""

_MEMORY = 80 * 2**20
"""Bytes of Ray's object store, the least it takes: nothing but lines of text goes through it."""

_CONNECTS = 5.0
"""Seconds for an address to be connected to."""

_CLOSES = 5.0
"""Seconds for threads to notice that their workers were killed."""

_sending = threading.Lock()
_events: TextIO = sys.stdout


@dataclass
class _Job:
    number: int
    order: str
    deaths: int = 0
    moves: int = 0


class _Pool:
    """A thread for each worker. A worker that waits for room on the cluster keeps nobody but its own thread waiting."""

    def __init__(self, ray: Any, actors: Any, setup: str, retries: int) -> None:
        self.ray, self.actors, self.setup, self.retries = ray, actors, setup, retries
        self.jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self.ready = 0
        self.starts = 0
        self.last_ready = time.monotonic()
        self.lock = threading.Lock()
        self.closing = False
        self.workers: dict[int, Any] = {}
        self.threads: list[threading.Thread] = []

    def start(self, workers: int) -> None:
        self.threads = [threading.Thread(target=self._keep_one, args=(i,), daemon=True) for i in range(workers)]
        for thread in self.threads:
            thread.start()
        threading.Thread(target=self._watch, daemon=True).start()

    def close(self) -> None:
        """End all workers, and the threads that wait for them: Ray crashes where it is shut down under a thread."""
        self.closing = True
        for worker in list(self.workers.values()):
            self.ray.kill(worker)
        for _ in self.threads:
            self.jobs.put(None)
        end = time.monotonic() + _CLOSES
        for thread in self.threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _keep_one(self, place: int) -> None:
        while not self.closing:  # a call to Ray after its end would start another cluster
            worker = self.workers[place] = self.actors.remote(self.setup)
            try:
                self._check_version(self.ray.get(worker.version.remote()))
            except self.ray.exceptions.RayError as death:
                self._died_at_start(death)
                continue
            with self.lock:
                self.ready, self.starts = self.ready + 1, 0
            try:
                self._serve(worker)
            finally:
                with self.lock:
                    self.ready, self.last_ready = self.ready - 1, time.monotonic()

    def _serve(self, worker: Any) -> None:
        """Run jobs until the worker dies; then the job is taken by whichever worker is ready first."""
        while True:
            job = self.jobs.get()
            if job is None:
                return
            try:
                for answer in worker.run.options(num_returns="streaming").remote(job.order):
                    _send({"job": job.number, **json.loads(self.ray.get(answer))})
            except self.ray.exceptions.RayError as death:
                if not self.closing:
                    self._lost(job, self._explained(worker, death))
                return

    def _explained(self, worker: Any, death: Exception) -> Exception:
        """Return why a worker died. At first Ray knows only that it does not answer; a lost node is found out later."""
        unknown, end = self.ray.exceptions.ActorUnavailableError, time.monotonic() + _EXPLAINED
        while isinstance(death, unknown) and time.monotonic() < end:
            time.sleep(0.2)
            try:
                self.ray.get(worker.version.remote())
            except self.ray.exceptions.RayError as later:
                death = later
            else:  # it was out of reach for a while, and what its trial said is lost
                break
        self.ray.kill(worker)
        return death

    def _lost(self, job: _Job, death: Exception) -> None:
        moved = self._is_loss_of_node(death)
        job.moves, job.deaths = job.moves + moved, job.deaths + (not moved)
        if job.moves > _MOVES or job.deaths > self.retries:
            _send({"job": job.number, "event": "died", "reason": _text(death)})
        else:
            self.jobs.put(job)

    def _died_at_start(self, death: Exception) -> None:
        if self.closing:
            return
        with self.lock:
            self.starts += not self._is_loss_of_node(death)
            if self.starts >= _STARTS:
                _give_up(f"{_STARTS} workers died as they started: {_text(death).splitlines()[-1]}")

    def _is_loss_of_node(self, death: Exception) -> bool:
        lost = ("node has died", "node was terminated")
        out_of_reach = isinstance(death, self.ray.exceptions.ActorUnavailableError)
        return out_of_reach or any(words in str(death) for words in lost)

    def _check_version(self, theirs: str) -> None:
        ours = metadata.version("stemlab")
        if theirs != ours:
            _give_up(f"a node of the Ray cluster has stemlab {theirs}, this machine {ours}; install the same on all")

    def _watch(self) -> None:
        while True:
            time.sleep(1)
            if self.ready == 0 and time.monotonic() - self.last_ready > _PATIENCE:
                _give_up(
                    f"for {_PATIENCE:.0f} s the Ray cluster had no room for a single trial: its nodes are gone, or "
                    "others have taken their CPUs and GPUs (ray status shows it)"
                )


def _text(death: Exception) -> str:
    """Return what Ray says, without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", str(death)).strip() or type(death).__name__


def _give_up(message: str) -> NoReturn:
    """Tell the study why it cannot go on, and end this process from whatever thread."""
    _send({"event": "fatal", "message": message})
    os._exit(1)


def _send(event: dict[str, Any]) -> None:
    line = json.dumps(event) + "\n"
    with _sending, contextlib.suppress(BrokenPipeError):  # the study is gone, and the end of stdin will say so
        _events.write(line)
        _events.flush()


def main() -> None:
    """Connect to a cluster, or start one; serve until stdin ends."""
    global _events
    _events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes to the log, not into the protocol
    options = json.loads(sys.stdin.readline())
    engine = EngineSpec.model_validate(options["engine"])
    private = Path.cwd()  # made for us by ray_runner
    try:
        if engine.address is None:
            ray, demand, workers = _start(engine, slots.plan(engine, options["concurrency"]), private)
        else:
            ray = _connect(engine.address)
            demand, workers = room(engine, options["concurrency"], ray.nodes())
    except EngineError as error:
        _give_up(str(error))
    setup = {
        "work": options["work"],
        "keep": options["keep"],
        "cwd": options["cwd"],
        "threads": engine.threads,
        "cpu": not demand["num_gpus"],
    }
    # We start anew what dies: Ray would run a trial again without counting it.
    workers_of = ray.remote(**demand, max_restarts=0, max_task_retries=0)(RayWorker)
    pool = _Pool(ray, workers_of, json.dumps(setup), options["retries"])
    _send({"event": "up", "slots": workers})
    pool.start(workers)
    for line in sys.stdin:
        order = json.loads(line)
        pool.jobs.put(_Job(order["job"], order["order"]))
    pool.close()
    ray.shutdown()
    for _ in range(20):  # ray_runner, whose folder it is, may have been killed; and Ray's last processes still write
        shutil.rmtree(private, ignore_errors=True)
        if not private.exists():
            break
        time.sleep(0.2)
    os._exit(0)  # threads wait in Ray


def _start(engine: EngineSpec, places: list[slots.Slot], private: Path) -> tuple[Any, dict[str, float], int]:
    """Start a cluster on this machine: on the loopback alone, with a token, in a folder of our own."""
    os.environ |= {
        # Without this, Ray takes 127.0.0.1 for a mistake and listens on the machine's own address.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    groups = sorted({place.gpus for place in places if place.gpus})
    if groups:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(str(gpu) for group in groups for gpu in group)
    ray = _import()
    ray.init(
        num_cpus=len(places) * engine.threads,
        num_gpus=sum(map(len, groups)),
        include_dashboard=False,
        object_store_memory=_MEMORY,
        log_to_driver=False,
        logging_level="ERROR",
        _node_ip_address="127.0.0.1",
        _temp_dir=str(private / "cluster"),  # Ray opens its folder to all; ours above it is closed
    )
    (node,) = ray.nodes()
    if node["NodeManagerAddress"] != "127.0.0.1":
        raise EngineError(f"Ray listens on {node['NodeManagerAddress']}, not on 127.0.0.1 alone; not going on")
    shared = engine.trials_per_gpu != 1 and bool(groups)
    each = min(1.0, len(groups) / len(places)) if shared else len(places[0].gpus)
    return ray, {"num_cpus": engine.threads, "num_gpus": each}, len(places)


def _connect(address: str) -> Any:
    """Connect to a running cluster of which this machine is a node."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise EngineError(f"engine.address (={address!r}): expected host:port, that of the cluster's head node (6379)")
    for name in (host, socket.gethostname()) if host in ("127.0.0.1", "localhost") else (host,):
        try:
            socket.create_connection((name.strip("[]"), int(port)), timeout=_CONNECTS).close()
            break
        except (OSError, OverflowError) as error:
            why = str(error)
    else:
        raise EngineError(f"engine.address (={address!r}): there is no Ray cluster: {why}")
    ray = _import()
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        raise EngineError(f"engine.address (={address!r}): {error}") from None
    return ray


def _import() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it would report to its makers
    import ray

    return ray


def room(engine: EngineSpec, concurrency: int, nodes: list[dict[str, Any]]) -> tuple[dict[str, float], int]:
    """Return what a worker asks of Ray, and how many there are to be; EngineError where no node has room for one.

    `nodes` are as ray.nodes() gives them.
    """
    if engine.gpus is not None:
        raise EngineError("engine.gpus names GPUs of this machine; a Ray cluster hands out its own, so leave it out")
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = [int(node.get("GPU", 0)) for node in alive]
    wanted = (1 if any(gpus) else 0) if engine.gpus_per_trial is None else engine.gpus_per_trial
    if wanted > max(gpus, default=0):
        raise EngineError(
            f"engine.gpus_per_trial (={wanted}): no node of the Ray cluster has so many GPUs; its {len(alive)} nodes "
            f"have {sum(gpus)} in all; leave it out, or set it to 0 for the CPU"
        )
    sharing = engine.trials_per_gpu if isinstance(engine.trials_per_gpu, int) else 1
    on_cpus = [int(node.get("CPU", 0) // engine.threads) for node in alive]
    if not any(on_cpus):
        raise EngineError(f"engine.threads (={engine.threads}): no node of the Ray cluster has so many CPUs")
    on_gpus = [gpu // wanted * sharing if wanted else most for gpu, most in zip(gpus, on_cpus, strict=True)]
    most = sum(map(min, on_cpus, on_gpus))
    if engine.workers is not None and engine.workers > most:
        raise EngineError(f"engine.workers (={engine.workers}): the Ray cluster has room for {most} trials at a time")
    demand = {"num_cpus": engine.threads, "num_gpus": 1 / sharing if sharing > 1 and wanted else wanted}
    return demand, min(most, concurrency if engine.workers is None else engine.workers)


if __name__ == "__main__":
    main()
