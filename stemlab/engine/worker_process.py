"""A worker seen from outside: a process, here or at the end of a connection, spoken to in lines of JSON."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, Protocol

from ..records import TrialRecord
from ..spec import Order
from .runner import PackProgress, Progress


class WorkerDied(Exception):
    """A worker ended that should not have: its exit code (negative: a signal), the end of its log, how far it was."""

    def __init__(self, code: int, log: str, was_ready: bool) -> None:
        self.code, self.log, self.was_ready = code, log, was_ready
        self.reason = f"exit code {code}"
        killed_by = -code if code < 0 else code - 128  # a shell that is its parent says 128 + the signal
        if killed_by in set(signal.Signals):
            name = signal.Signals(killed_by).name
            self.reason = f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        super().__init__(self.reason)


class Process(Protocol):
    """What is asked of a worker's process: as of subprocess.Popen, but for `kill`."""

    pid: int
    stdin: IO[bytes]
    stdout: IO[bytes]

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code (negative: a signal); subprocess.TimeoutExpired if it takes longer."""

    def kill(self) -> None:
        """Kill it and all that it started."""


class Spawned(Process):
    """A process started by a command, in a group of its own."""

    def __init__(self, command: Sequence[str], log: IO[bytes], environment: Mapping[str, str] | None = None) -> None:
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **(environment or {})},
            # A group of its own: Ctrl-C reaches us alone, and a kill reaches all that the trial started.
            process_group=0,
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self.pid, self.stdin, self.stdout = self._popen.pid, self._popen.stdin, self._popen.stdout

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code; subprocess.TimeoutExpired if it takes longer than so many seconds."""
        return self._popen.wait(timeout)

    def kill(self) -> None:
        """Kill it and all that it started."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self._popen.kill()


class WorkerProcess:
    """A process that serves as stemlab.engine.worker does, made by `start`, which is given the file for its log.

    `first` is sent before any order. Whatever `start` raises is raised.
    """

    def __init__(self, start: Callable[[IO[bytes]], Process], first: str = "") -> None:
        self.ready = False
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        try:
            self.process = start(self._log)
        except BaseException:
            self._log.close()
            raise
        self.send(first)

    def send(self, text: str) -> bool:
        """Write to its stdin; whether that was still possible."""
        try:
            self.process.stdin.write(text.encode())
            self.process.stdin.flush()
        except (OSError, ValueError):
            return False
        return True

    def await_ready(self) -> None:
        """Wait until it has imported what it needs; WorkerDied if it does not get there."""
        while not self.ready:
            for _ in self._events():
                break
            else:
                raise self._death()

    def run(self, order: Order, progress: Progress) -> TrialRecord:
        """Have a trial run; WorkerDied if there was no record."""
        return TrialRecord.from_dict(self._ask(order.canonical(), "record", lambda event: progress(event["row"])))

    def run_pack(self, orders: Sequence[Order], progress: PackProgress) -> list[TrialRecord]:
        """Have several trials run as one; WorkerDied if there were no records."""
        pack = {"pack": [order.canonical() for order in orders]}
        found = self._ask(pack, "records", lambda event: progress(event["member"], event["row"]))
        return [TrialRecord.from_dict(record) for record in found]

    def _ask(self, task: dict[str, Any], wanted: str, epoch: Callable[[dict[str, Any]], None]) -> Any:
        """Send a task, pass on its epochs and return what the event that is wanted has; WorkerDied if none comes."""
        if not self.send(json.dumps(task) + "\n"):
            raise self._death()
        for event in self._events():
            if event["event"] == "epoch":
                epoch(event)
            elif event["event"] == wanted:
                return event[wanted]
        raise self._death()

    def _events(self) -> Iterator[dict[str, Any]]:
        for line in self.process.stdout:
            try:
                event: dict[str, Any] = json.loads(line)
            except ValueError:
                if self.ready:
                    raise
                continue  # what a login shell says before the worker speaks
            self.ready = True  # the first thing that a worker says
            yield event

    def _death(self) -> WorkerDied:
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        return WorkerDied(code, tail(self._log), self.ready)

    def close(self) -> None:
        """Kill it and what it started, and wait until it is gone."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self._log):
            with contextlib.suppress(OSError):  # the pipe broke with the process
                stream.close()


def tail(log: IO[bytes]) -> str:
    """Return the end of a process's log."""
    try:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(0, size - 4000))
        return log.read().decode(errors="replace").strip()
    except (OSError, ValueError):
        return ""
