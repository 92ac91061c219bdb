"""A worker seen from outside: a process, here or at the end of a connection, spoken to in lines of JSON."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from ..records import TrialRecord
from ..spec import Order
from .runner import Progress


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


class WorkerProcess:
    """A process that serves as stemlab.engine.worker does. `first` is sent before any order."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None, first: str = "") -> None:
        self.ready = False
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **(environment or {})},
            # A group of its own: Ctrl-C reaches us alone, and a kill reaches all that the trial started.
            process_group=0,
        )
        self.send(first)

    def send(self, text: str) -> bool:
        """Write to its stdin; whether that was still possible."""
        assert self.process.stdin is not None
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
        if not self.send(order.canonical_json() + "\n"):
            raise self._death()
        for event in self._events():
            if event["event"] == "epoch":
                progress(event["row"])
            elif event["event"] == "record":
                return TrialRecord.from_dict(event["record"])
        raise self._death()

    def _events(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout is not None
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
            self._kill()
            code = self.process.wait()
        return WorkerDied(code, self._tail(), self.ready)

    def _tail(self) -> str:
        try:
            size = self._log.seek(0, os.SEEK_END)
            self._log.seek(max(0, size - 4000))
            return self._log.read().decode(errors="replace").strip()
        except (OSError, ValueError):
            return ""

    def _kill(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self.process.kill()

    def close(self) -> None:
        """Kill it and what it started, and wait until it is gone."""
        self._kill()
        self.process.wait()
        for stream in (self.process.stdin, self._log):
            if stream is not None:
                with contextlib.suppress(OSError):  # the pipe broke with the process
                    stream.close()
