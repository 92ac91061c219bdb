"""The engine `nni`: trials are handed out by NNI's own manager.

A trial is handed over as a job with a number of its own; its record comes back under that number, is the one of the
trial's digest or is nothing, and counts once. What NNI says of a trial decides one thing only: that it has ended, so
that a trial that left no record is found, and run again.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import math
import os
import queue
import secrets
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ...errors import EngineError
from ...records import TrialRecord
from ...spec import Order
from ..runner import RETRIES, Progress, RunnerClosed, failed
from . import trial
from .hub import Hub
from .launch import Manager, ManagerDied, find, free_port
from .service import MakeService

_STARTS = 3
"""How many managers may die in turn with no record in between; and how many workers before they are ready."""

_GRACE = 2.0
"""Seconds that a trial's record may come behind the news of its end, and its rows behind its record: NNI stores each
metric before it passes it on, so that one overtakes another."""


@dataclass(frozen=True)
class _Lost:
    """A trial that ended without a record: why, and whether its worker was ready for it."""

    reason: str
    was_ready: bool = True


@dataclass
class _Job:
    order: Order
    progress: Progress
    outcome: queue.SimpleQueue[TrialRecord | _Lost | Exception] = field(default_factory=queue.SimpleQueue)
    ended: float | None = None
    status: str = ""
    rows: int = 0
    record: TrialRecord | None = None
    wanted: int = 0  # rows that the trial had reported when it sent the record

    def parameters(self) -> dict[str, Any]:
        """What NNI is given: the order, and what its page may show of it."""
        trial_spec = self.order.trial
        return {"trial": trial_spec.digest, "seed": trial_spec.seed, "order": self.order.canonical_json()}


class NniRunner:
    """Runs trials through an experiment of NNI, restarted if it dies; `page` is the URL of its page.

    `make_service` says where (service.local, for one). EngineError, at once, where NNI is not the version that was
    tried; from `run`, where it cannot be made safe, or dies again and again.
    """

    def __init__(self, make_service: MakeService, retries: int = RETRIES, port: int | None = None) -> None:
        find()
        self._wanted_port, self._port = port, free_port(port)
        self._prefix = secrets.token_hex(24)
        # Of this user alone, and short: the path of a unix socket has about 100 characters.
        short = None if len(tempfile.gettempdir()) < 60 else "/tmp"
        self._folder = Path(tempfile.mkdtemp(prefix="stemlab-nni-", dir=short))
        try:
            (self._folder / "slots").mkdir(mode=0o700)
            self._life = os.open(self._folder / "life", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._life, fcntl.LOCK_EX)
            self._service = make_service(self._folder)
            self._hub = Hub(self._folder / "hub.sock")
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self.slots, self.retries = self._service.slots, retries
        self._hosts: list[subprocess.Popen[bytes] | None] = []
        self._lock = threading.Lock()
        self._jobs: dict[int, _Job] = {}
        self._numbers = itertools.count()
        self._records = 0
        self._is_up = False
        self._manager: Manager | None = None
        self._broken: EngineError | None = None
        self._closed = threading.Event()
        if self._service.is_here:
            # They import torch while NNI starts.
            self._hosts = [trial.start_host(self._service.settings, slot) for slot in range(self.slots)]
        self._keeper = threading.Thread(target=self._keep_up, name="nni", daemon=True)
        self._keeper.start()

    @property
    def page(self) -> str:
        """The URL of NNI's page. Its path is a secret of this study."""
        return f"http://127.0.0.1:{self._port}/{self._prefix}/"

    def run(self, order: Order, progress: Progress) -> TrialRecord:
        """Run one trial; EngineError where NNI's manager, or the workers, die again and again."""
        losses = starts = 0
        while True:
            outcome = self._hand_over(_Job(order, progress))
            if isinstance(outcome, TrialRecord):
                return outcome
            if isinstance(outcome, Exception):
                raise outcome
            if not outcome.was_ready:
                starts += 1
                if starts == _STARTS:
                    why = (outcome.reason.splitlines() or ["its log is empty"])[-1]
                    raise EngineError(f"{_STARTS} workers died as they started: {why}")
            else:
                losses += 1
                if losses > self.retries:
                    return failed(order.trial, outcome.reason)

    def close(self) -> None:
        """Stop NNI and all trials at once, and leave no process and no file behind."""
        if self._closed.is_set():
            return
        self._closed.set()
        while self._keeper.is_alive():
            manager = self._manager
            if manager is not None:
                trial.kill_host(manager.process.pid)  # it may be just starting, which takes seconds
            self._keeper.join(timeout=0.1)
        self._hub.close()
        self._settle(lambda job: RunnerClosed("the study was stopped"))
        self._end_hosts()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _hand_over(self, job: _Job) -> TrialRecord | _Lost | Exception:
        with self._lock:
            if self._broken is not None:
                return self._broken
            if self._closed.is_set():
                return RunnerClosed("the study was stopped")
            number = next(self._numbers)
            self._jobs[number] = job
            if self._is_up:
                self._hub.send(number, job.parameters())
        return job.outcome.get()

    def _settle(self, outcome: Callable[[_Job], TrialRecord | _Lost | Exception]) -> None:
        """End all jobs."""
        with self._lock:
            jobs, self._jobs = list(self._jobs.values()), {}
        for job in jobs:
            job.outcome.put(job.record or outcome(job))

    # The experiment.

    def _keep_up(self) -> None:
        """Keep an experiment of NNI running; if it cannot be, end all jobs with the reason."""
        deaths = records = 0
        try:
            while not self._closed.is_set():
                try:
                    self._experiment()
                except ManagerDied as death:
                    deaths = 1 if self._records > records else deaths + 1
                    records = self._records
                    if deaths == _STARTS:
                        raise EngineError(f"NNI's manager died {_STARTS} times: {death}") from None
        except Exception as error:
            if self._closed.is_set():
                return  # what broke, broke by that
            broken = error if isinstance(error, EngineError) else EngineError(f"NNI's manager: {error!r}")
            with self._lock:
                self._broken = broken
            self._settle(lambda job: broken)

    def _experiment(self) -> None:
        """Run one experiment until the runner is closed; ManagerDied where the experiment ends before."""
        try:
            free_port(self._port)
        except EngineError:
            if self._wanted_port is not None:
                raise
            self._port = free_port(None)
        manager = Manager(self._folder, self._service, self._hub.address, self._port, self._prefix)
        self._manager = manager
        try:
            manager.begin()
            self._await_relay(manager)
            manager.check_mended()
            manager.check_sockets()
            with self._lock:
                for number, job in self._jobs.items():
                    if job.record is None:
                        job.ended = None  # it ended with the manager before this one
                        self._hub.send(number, job.parameters())
                self._is_up = True
            self._follow(manager)
        except ManagerDied as death:
            raise ManagerDied(f"{death}\n{manager.tail()}") from None
        finally:
            with self._lock:
                self._is_up = False
            self._manager = None
            self._hub.drop()
            manager.close()

    def _await_relay(self, manager: Manager) -> None:
        """Wait until the dispatcher's relay is there and NNI takes trials from it."""
        is_here = False
        end = time.monotonic() + 120
        while not self._closed.is_set():
            with contextlib.suppress(queue.Empty):
                event = self._hub.events.get(timeout=0.2)
                # What the relay of an earlier experiment said may still be in the queue.
                is_here = is_here or (event is not None and event["event"] == "here")
                if is_here and event is None:
                    raise ManagerDied("its dispatcher ended")
                if is_here and event is not None and event["event"] == "ready":
                    return
            manager.check_alive()
            if time.monotonic() > end:
                raise ManagerDied("its dispatcher did not start")

    def _follow(self, manager: Manager) -> None:
        """Take what the relay says, and see that the manager is well."""
        checked = time.monotonic()
        while not self._closed.is_set():
            try:
                event = self._hub.events.get(timeout=0.5)
            except queue.Empty:
                pass
            else:
                if event is None:
                    raise ManagerDied("its dispatcher ended")
                self._take(event)
            self._find_lost()
            if time.monotonic() > checked + 2:
                manager.check_alive()
                manager.check_status()
                self._reap()
                checked = time.monotonic()

    # What the relay says.

    def _take(self, event: dict[str, Any]) -> None:
        job = self._jobs.get(event.get("job", -1))
        if job is None:
            return  # a second result, or news of a trial that was given up
        if event["event"] == "end":
            job.ended, job.status = time.monotonic(), event["status"]
        elif event["event"] == "metric":
            value = _parse(event["value"])
            if event["type"] == "PERIODICAL" and isinstance(value.get("row"), dict):
                job.rows += 1
                try:
                    job.progress(value["row"])
                except Exception as error:
                    self._finish(event["job"], error)
            elif "record" in value and job.record is None:
                job.record = _record(value["record"], job.order)
                if job.record is not None:  # else it is junk: the trial's end will tell that it left no record
                    rows = value.get("rows")
                    job.wanted, job.ended = rows if isinstance(rows, int) else 0, time.monotonic()
            elif isinstance(value.get("death"), dict):
                log, was_ready = str(value["death"].get("log", "")), value["death"].get("ready") is not False
                reason = f"{log}\nthe worker died".strip() if was_ready else log
                self._finish(event["job"], _Lost(reason, was_ready))
            if job.record is not None and job.rows >= job.wanted:
                self._finish(event["job"], job.record)

    def _finish(self, number: int, outcome: TrialRecord | _Lost | Exception) -> None:
        with self._lock:
            job = self._jobs.pop(number, None)
        if job is not None:
            self._records += isinstance(outcome, TrialRecord)
            job.outcome.put(outcome)

    def _find_lost(self) -> None:
        """End the jobs whose trials have ended: with the record, if only rows are missing, or as lost."""
        now = time.monotonic()
        with self._lock:
            jobs = list(self._jobs.items())
        for number, job in jobs:
            if job.ended is not None and now > job.ended + _GRACE:
                lost = _Lost(f"the trial ended without a record (NNI says {job.status})")
                self._finish(number, job.record or lost)

    # The hosts on this machine.

    def _reap(self) -> None:
        for host in self._hosts:
            if host is not None:
                host.poll()

    def _end_hosts(self) -> None:
        """Free the lock that hosts live by, kill those there are, and see that they are gone."""
        os.close(self._life)
        for host in self._hosts:
            if host is not None and host.poll() is None:
                trial.kill_host(host.pid)
                host.wait()
        if not self._service.is_here:
            return
        for slot in range(self.slots):  # some were started by clients, in the place of others
            base = self._folder / "slots" / f"slot-{slot}"
            with contextlib.suppress(FileNotFoundError), open(f"{base}.alive") as alive:
                end = time.monotonic() + 10
                while not _is_free(alive) and time.monotonic() < end:
                    with contextlib.suppress(OSError, ValueError):
                        trial.kill_host(int(Path(f"{base}.pid").read_text()))
                    time.sleep(0.01)


def _is_free(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _parse(text: Any) -> dict[str, Any]:
    """Return a metric's value, a mapping if it is of ours."""
    try:
        value = json.loads(text)
    except (ValueError, TypeError):
        return {}
    return value if isinstance(value, dict) else {}


def _record(data: Any, order: Order) -> TrialRecord | None:
    """Return the record, if it is one of this very trial."""
    try:
        record = TrialRecord.from_dict(data)
    except ValueError:
        return None
    if record.trial != order.trial.digest or not all(math.isfinite(value) for value in record.metrics.values()):
        return None
    return record
