"""What a study is doing, read from its folder by somebody else: nothing is locked and nothing is written."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from .engine import status_file
from .plan import Plan
from .records import TrialRecord
from .spec import AblationSpec, SearchSpec
from .spec.files import read
from .study import Study

State = Literal["running", "interrupted", "finished", "stopped early"]


@dataclass(frozen=True)
class Status:
    """Where a study stands. `why` is the reason where it stopped early; `total` is how many trials there are at most.

    `counts` has the number of trials of each status. `running` are the trials at work, by what status.json says of
    them: trial, proposal, seed, epoch, epochs, top1. `per_hour` and `seconds_left` follow from what this run of the
    study has trained so far; None where it has trained nothing, or does not run. `best` has proposal, label and the
    objectives' values of the best proposal, or of each on the Pareto front where there are several objectives.
    """

    folder: Path
    name: str
    kind: Literal["search", "ablation"]
    state: State
    why: str | None
    total: int
    counts: dict[str, int]
    running: tuple[dict[str, Any], ...]
    per_hour: float | None
    seconds_left: float | None
    best: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    page: str | None

    @property
    def done(self) -> int:
        """How many trials are on record."""
        return sum(self.counts.values())

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**vars(self), "folder": str(self.folder), "done": self.done}


def status(folder: str | os.PathLike[str]) -> Status:
    """Return where the study in a folder stands; StudyError where there is none."""
    return Watch(folder).look()


class Watch:
    """Looks at a study again and again; what has not changed is not worked out again."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Open the folder of a study; StudyError where there is none."""
        self.study = Study(folder)
        self._size = -1
        self._records: list[TrialRecord] = []
        self._best: tuple[dict[str, Any], ...] = ()
        self._planned: int | None = None

    def look(self) -> Status:
        """Return where the study stands now."""
        study, path = self.study, self.study.folder.path
        told = _read(path / status_file.NAME)
        # Whether it runs is asked before its records are read, so that those of a study that has ended are complete.
        running, current = _runs(path, told)
        manifest = _read(path / "manifest.json")
        self._read_records()
        total = told.get("total") or self._total()
        stopped = manifest.get("stopped")
        state: State = "interrupted"
        if running:
            state = "running"
        elif manifest.get("finished"):
            state = "stopped early" if stopped else "finished"
        now = told if current else {}
        per_hour = _pace(now)
        left = max(0, total - len(self._records))
        return Status(
            folder=path,
            name=study.spec.name,
            kind="search" if isinstance(study.spec, SearchSpec) else "ablation",
            state=state,
            why=stopped if state == "stopped early" else None,
            total=total,
            counts=dict(Counter(record.status for record in self._records)),
            running=tuple(now.get("running", ())),
            per_hour=per_hour,
            seconds_left=3600 * left / per_hour if per_hour else None,
            best=self._best,
            notes=tuple(told.get("notes", ())),
            page=now.get("page"),
        )

    def _read_records(self) -> None:
        file = self.study.folder.records_file
        size = file.stat().st_size if file.exists() else 0
        if size == self._size:
            return
        from .analysis.ranking import latest
        from .analysis.sought import leading

        self._records = latest(self.study.trials)
        spec = self.study.spec
        self._best = tuple(leading(self._records, spec.search)) if isinstance(spec, SearchSpec) else ()
        self._size = size

    def _total(self) -> int:
        """Return how many trials the study file asks for."""
        if self._planned is None:
            spec = self.study.spec
            if isinstance(spec, AblationSpec):
                self._planned = Plan.of(spec, read(self.study.folder.path / "study.yaml")).total
            else:
                self._planned = spec.search.trials * spec.search.trials_each
        return self._planned


def _read(path: Path) -> dict[str, Any]:
    """Return what a file of the running study says; nothing where it is missing or damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _runs(folder: Path, told: dict[str, Any]) -> tuple[bool, bool]:
    """Return whether a study runs, and whether status.json is that of the process that runs it.

    A study runs while a process holds the folder's lock. To try the lock would be to take it, if only for a moment, and
    a study that starts in that moment would be refused: so it is looked up in the kernel's list. Of a study on another
    machine there is only its status.json, which it writes twice a minute.
    """
    if told and told.get("host") != platform.node():
        age = datetime.now(UTC) - _time(told.get("updated"))
        running = age.total_seconds() < 4 * status_file.BEAT
        return running, running
    pid = told.get("pid")
    alive = isinstance(pid, int) and _alive(pid) and told.get("born") == status_file.born(pid)
    held = _held(folder / ".lock")
    running = alive if held is None else held
    return running, running and alive


def _held(lock: Path) -> bool | None:
    """Tell whether a process of this machine holds a lock file; None where the system does not say."""
    try:
        number = lock.stat().st_ino
        lines = Path("/proc/locks").read_text().splitlines()
    except FileNotFoundError:
        return None if lock.exists() else False
    except OSError:
        return None
    # `1: FLOCK ADVISORY WRITE <pid> <major>:<minor>:<inode> 0 EOF`; what waits for a lock has `->` for its second word.
    words = [line.split() for line in lines]
    return any(w[1] == "FLOCK" and w[5].endswith(f":{number}") for w in words if len(w) > 5)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def _pace(told: dict[str, Any]) -> float | None:
    """Return how many trials this run trains in an hour, those at work counted as far as they are."""
    parts = [
        min(1.0, row["epoch"] / row["epochs"]) for row in told.get("running", ()) if row.get("epoch") and row["epochs"]
    ]
    trained = told.get("trained", 0) + sum(parts)
    hours = (_time(told.get("updated")) - _time(told.get("started"))).total_seconds() / 3600
    return trained / hours if trained and hours > 0 else None


def _time(text: Any) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return datetime.fromtimestamp(0, UTC)
