"""The ray engine: trials on a Ray cluster, or on one that is started for the study on this machine."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from ..errors import EngineError
from ..records import TrialRecord
from ..spec import EngineSpec, Order
from .runner import RETRIES, Progress, RunnerClosed, failed
from .work import TRAIN

_STARTS_IN = 120.0
"""Seconds that a cluster on this machine may take to start (it takes about ten)."""

_CONNECTS_IN = 45.0
"""Seconds that a running cluster may take to answer (it takes two); Ray itself would wait for two minutes."""

_STOPS_IN = 15.0
"""Seconds for Ray to end its own processes, before they are killed."""


class RayRunner:
    """Runs trials in warm workers on the nodes of a Ray cluster.

    A trial whose worker died is run again on another one, up to `retries` times; then its death is recorded. That its
    node died is not held against it, up to three times. EngineError, within seconds, where there is no Ray, no cluster
    at the address, or no node that has the CPUs and GPUs which a trial asks for. Ray is spoken to by a process of its
    own (ray_driver), since it ends whichever process has lost its cluster. `keep` is a folder where trials keep their
    state, on the nodes that have it.
    """

    def __init__(
        self,
        engine: EngineSpec,
        concurrency: int,
        retries: int = RETRIES,
        keep: Path | None = None,
        work: str = TRAIN,
    ) -> None:
        version()
        self._closed = threading.Event()
        self._sending = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._up: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._fatal: str | None = None
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the runner)
        self._cwd = tempfile.TemporaryDirectory(prefix="stemlab-ray-", dir=_short_folder())
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "stemlab.engine.ray_driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Ray's workers import from the folder in which it was started: a torch.py in the user's is not torch.
            cwd=self._cwd.name,
            env=_environment(),
            process_group=0,  # Ctrl-C reaches us alone
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        options = {
            "engine": engine.canonical(),
            "concurrency": concurrency,
            "retries": retries,
            "keep": None if keep is None else str(keep.absolute()),
            "cwd": os.getcwd(),
            "work": work,
        }
        try:
            self._send(options)
            patience = _STARTS_IN if engine.address is None else _CONNECTS_IN
            try:
                event = self._up.get(timeout=patience)
            except queue.Empty:
                where = "this machine" if engine.address is None else f"engine.address (={engine.address!r})"
                raise EngineError(f"{where}: no answer from Ray within {patience:.0f} s") from None
            if event["event"] != "up":
                raise EngineError(event["message"])
            self.slots: int = event["slots"]
        except BaseException:
            self.close()
            raise

    def run(self, order: Order, progress: Progress) -> TrialRecord:
        """Run one trial on the next idle worker; EngineError where the cluster is gone or workers do not start."""
        number, events = next(self._numbers), queue.SimpleQueue[dict[str, Any]]()
        self._waiting[number] = events
        try:
            self._send({"job": number, "order": order.canonical_json()})
            if self._fatal is not None:  # said before our place was there
                raise self._end()
            while True:
                event = events.get()
                if event["event"] == "epoch":
                    progress(event["row"])
                elif event["event"] == "record":
                    return TrialRecord.from_dict(event["record"])
                elif event["event"] == "died":
                    return failed(order.trial, f"the worker died: {event['reason']}")
                else:
                    raise self._end()
        finally:
            del self._waiting[number]

    def close(self) -> None:
        """Stop all trials, and the cluster if it is ours, and wait until they are gone."""
        if self._closed.is_set():
            return
        self._closed.set()
        with contextlib.suppress(OSError):  # the pipe broke with the process
            self._stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOPS_IN)
        # What Ray starts dies with the process that started it; whatever is left of its group is ended here.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(_STOPS_IN)
        self._log.close()
        self._cwd.cleanup()

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _send(self, message: dict[str, Any]) -> None:
        try:
            with self._sending:
                self._stdin.write(json.dumps(message).encode() + b"\n")
                self._stdin.flush()
        except (OSError, ValueError):
            self._reader.join(_STOPS_IN)  # it says why

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            if event["event"] == "fatal":
                self._fatal = event["message"]
            elif event["event"] == "up":
                self._up.put(event)
            else:
                self._waiting[event["job"]].put(event)
        self._process.stdout.close()
        self._fatal = self._fatal or f"Ray's process ended: {self._last_line()}"
        end = {"event": "fatal", "message": self._fatal}
        self._up.put(end)
        for events in list(self._waiting.values()):
            events.put(end)

    def _last_line(self) -> str:
        try:
            size = self._log.seek(0, os.SEEK_END)
            self._log.seek(max(0, size - 4000))
            lines = self._log.read().decode(errors="replace").strip().splitlines()
        except ValueError:  # closed
            lines = []
        return lines[-1] if lines else "its log is empty"

    def _end(self) -> EngineError | RunnerClosed:
        return RunnerClosed("the study was stopped") if self._closed.is_set() else EngineError(self._fatal or "")


def version() -> str:
    """Return Ray's version, or an EngineError that says how to get it."""
    try:
        return metadata.version("ray")
    except metadata.PackageNotFoundError:
        raise EngineError("engine.kind (=ray): Ray is not installed; pip install 'stemlab[ray]'") from None


def _environment() -> dict[str, str]:
    """Return our environment; the folders of PYTHONPATH are meant as seen from here."""
    found = os.environ.get("PYTHONPATH")
    if not found:
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(part).absolute()) for part in found.split(os.pathsep))}


def _short_folder() -> str | None:
    """Return where the folder of a cluster may be: its sockets have paths of 107 bytes at most; Ray takes 92."""
    return None if len(tempfile.gettempdir()) < 12 else "/tmp"
