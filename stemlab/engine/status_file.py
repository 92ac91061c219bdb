"""status.json: what a study is doing right now, told to whoever looks into its folder.

The records say what is finished; this file says what runs. Nothing is ever read back from it by the study itself.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import threading
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import StemlabError
from ..records import TrialRecord
from ..spec.files import dump_json, write_text
from .loop import Reporter

NAME = "status.json"
_PAUSE = 1.0
"""Seconds between two writes, at least."""

BEAT = 30.0
"""Seconds between two writes, at most: a file that is much older was left by a process that is gone."""

_NOTES = 20


class StatusFile:
    """A reporter that keeps status.json in the study folder up to date and passes everything on to another reporter.

    It writes in a thread of its own, at most once a second; where it cannot (a full disk, say), it keeps quiet and
    tries again later. `page` is the address of the engine's page, where it has one. Used as a context manager: at its
    end nothing runs any more.
    """

    def __init__(self, reporter: Reporter, page: str | None = None) -> None:
        self.reporter, self.page = reporter, page
        self._folder: Path | None = None
        self._started = _now()
        self._total = self._done = self._trained = 0
        self._running: dict[str, dict[str, Any]] = {}
        self._notes: deque[str] = deque(maxlen=_NOTES)
        self._lock = threading.Lock()
        self._changed, self._ended = threading.Event(), threading.Event()
        self._writer = threading.Thread(target=self._write_on, name="status", daemon=True)

    def __enter__(self) -> StatusFile:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._running.clear()
        self._ended.set()
        self._changed.set()
        if self._writer.is_alive():
            self._writer.join()
        self._write()

    def preparing(self, what: str, done: int, total: int) -> None:
        """Pass on: there is no folder yet, or nothing runs in it."""
        self.reporter.preparing(what, done, total)

    def begin(self, folder: Path, total: int, slots: int) -> None:
        """Begin to write: the folder is known."""
        with self._lock:
            self._folder, self._total = folder, total
        self._tell()
        self._writer.start()
        self.reporter.begin(folder, total, slots)

    def started(self, trial: str, proposal: int, seed: int) -> None:
        """One more trial runs."""
        row = {"trial": trial, "proposal": proposal, "seed": seed, "epoch": 0, "epochs": None, "top1": None}
        with self._lock:
            self._running[trial] = row
        self._tell()
        self.reporter.started(trial, proposal, seed)

    def epoch(self, trial: str, row: dict[str, float]) -> None:
        """A trial has come further."""
        with self._lock:
            running = self._running.get(trial)
            if running is not None:
                running |= {"epoch": row.get("epoch"), "epochs": row.get("epochs"), "top1": _finite(row.get("top1"))}
        self._tell()
        self.reporter.epoch(trial, row)

    def finished(self, record: TrialRecord, reused: bool) -> None:
        """A trial runs no more."""
        with self._lock:
            self._running.pop(record.trial, None)
            self._done += 1
            self._trained += not reused
        self._tell()
        self.reporter.finished(record, reused)

    def note(self, text: str) -> None:
        """Keep the last notes."""
        with self._lock:
            self._notes.append(text)
        self._tell()
        self.reporter.note(text)

    def _tell(self) -> None:
        self._changed.set()

    def _write_on(self) -> None:
        while not self._ended.is_set():
            self._changed.clear()
            self._write()
            self._ended.wait(_PAUSE)
            self._changed.wait(BEAT - _PAUSE)

    def _write(self) -> None:
        with self._lock:
            if self._folder is None:
                return
            path, text = self._folder / NAME, dump_json(self._content())
        with contextlib.suppress(StemlabError):
            write_text(path, text)

    def _content(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "born": born(os.getpid()),
            "host": platform.node(),
            "started": self._started,
            "updated": _now(),
            "total": self._total,
            "done": self._done,
            "trained": self._trained,
            "running": list(self._running.values()),
            "notes": list(self._notes),
            "page": self.page,
        }


def born(pid: int) -> int | None:
    """Return when a process was started, in ticks since the system was; None where there is none or it is not known.

    With its number that is a process's identity: numbers are used again.
    """
    try:
        # The name, in brackets, may hold spaces and brackets.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
