"""Records of trials, and the study folder that keeps them: one writer, appended and synced, recovered if torn."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import filelock

from .errors import SpecError, StemlabError, StudyError, short
from .spec import TrialSpec
from .spec.files import dump_json, dump_yaml, read, write_text

STATE = "checkpoint.safetensors"
"""In trials/<digest>/: what a trial that was stopped early goes on from."""

Status = Literal["ok", "diverged", "pruned", "infeasible", "failed"]


@dataclass(frozen=True)
class TrialRecord:
    """One finished trial. `trial` is the digest of its TrialSpec; `curve` has one row an epoch.

    `metrics` (top1, top1_error and loss on the validation part, test_top1 and test_loss on the test part, seconds,
    images_per_second) lacks what a diverged or failed trial has not got. `probes` is what they measured
    (docs/probes.md); their columns of the curve are null where a number was not finite. `reused_from` is the folder of
    the study that ran the trial, where that is another one. A pruned trial was stopped early: behind epoch `until`
    where the study said so beforehand. An infeasible one was not trained: it is slower than the study allows. `screen`
    is the score that it was ordered by.
    """

    trial: str
    status: Status
    model: dict[str, Any]
    train: dict[str, Any]
    data: dict[str, Any]
    seed: int
    assignment: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    match: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    probes: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    proposal: int | None = None
    reused_from: str | None = None
    until: int | None = None
    screen: float | None = None

    @classmethod
    def of(cls, trial: TrialSpec, status: Status, **rest: Any) -> TrialRecord:
        """Return the record of a trial, its specs in their canonical form."""
        return cls(
            trial=trial.digest,
            status=status,
            model=trial.model.canonical(),
            train=trial.train.canonical(),
            data=trial.data.canonical(),
            seed=trial.seed,
            **rest,
        )

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        return json.dumps(asdict(self), allow_nan=False, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TrialRecord:
        """Return the record that `to_json` wrote; ValueError names what is wrong with it.

        Unknown fields (of a later version) are dropped.
        """
        if not isinstance(data, dict):
            raise ValueError(f"expected a mapping, got {short(data)}")
        for name, (kinds, needed) in _FIELD_TYPES.items():
            if (needed or name in data) and not isinstance(data.get(name), kinds):
                raise ValueError(f"{name}: got {short(data.get(name))}")
        if data["status"] not in get_args(Status):
            raise ValueError(f"status: got {short(data['status'])}")
        return cls(**{name: value for name, value in data.items() if name in cls.__dataclass_fields__})


_FIELD_TYPES: dict[str, tuple[tuple[type, ...], bool]] = {
    **dict.fromkeys(("trial", "status"), ((str,), True)),
    **dict.fromkeys(("model", "train", "data"), ((dict,), True)),
    "seed": ((int,), True),
    **dict.fromkeys(("assignment", "metrics", "cost", "match", "probes"), ((dict,), False)),
    "curve": ((list,), False),
    "error": ((str, type(None)), False),
    "proposal": ((int, type(None)), False),
    "reused_from": ((str, type(None)), False),
    "until": ((int, type(None)), False),
    "screen": ((int, float, type(None)), False),
}


def _is_record(line: bytes) -> bool:
    try:
        TrialRecord.from_dict(json.loads(line))
    except (ValueError, TypeError):
        return False
    return True


class StudyFolder:
    """`runs/<name>/`: study.yaml, manifest.json, records.jsonl, trials/<digest>/, best.json and the reports."""

    document = "study.yaml"
    what = "study"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.recovered: str | None = None
        self._lock: filelock.BaseFileLock | None = None

    @property
    def records_file(self) -> Path:
        """Where the records are: one JSON document a line."""
        return self.path / "records.jsonl"

    def open_to_write(self, study: dict[str, Any], resume: bool, extended: dict[str, Any] | None = None) -> None:
        """Create the folder, or take up an unfinished study. StudyError where it belongs to another one.

        `extended` is what the study taken up is to become: the same with more seeds.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudyError(f"{self.path}: cannot be made: {error.strerror}") from None
        try:
            lock = filelock.FileLock(self.path / ".lock", mode=0o644)
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise StudyError(f"{self.path}: another {self.what} is writing to this folder; use another --out") from None
        except OSError as error:
            raise StudyError(f"{self.path}: cannot be written to: {error.strerror}") from None
        self._lock = lock
        try:
            self._claim(study, resume)
            if extended is not None and extended != study:
                write_text(self.path / self.document, dump_yaml(extended))
        except BaseException:
            self.close()
            raise

    def _claim(self, study: dict[str, Any], resume: bool) -> None:
        written = self.path / self.document
        if written.exists():
            if read(written).data != json.loads(json.dumps(study)):
                raise StudyError(
                    f"{written}: the folder holds another {self.what}; use another --out, or its own {self.what} file"
                )
            if not resume:
                raise StudyError(
                    f"{self.path}: the {self.what} was started before; use --resume to go on, or another --out to "
                    "start again"
                )
        elif self.records_file.exists():
            raise StudyError(f"{self.records_file}: there are records but no {self.document}; use another --out")
        else:
            write_text(written, dump_yaml(study))
        self._mend()

    def _mend(self) -> None:
        """Take away what a crash in the middle of a write left at the end of the records, and keep it beside them."""
        if not self.records_file.exists():
            return
        content = self.records_file.read_bytes()
        end = content.rfind(b"\n") + 1
        last = content.rfind(b"\n", 0, max(0, end - 1)) + 1
        if end == len(content) and last < end and not _is_record(content[last:end]):
            end = last
        if end == len(content):
            return
        damaged = self.path / "records.damaged"
        with damaged.open("ab") as file:
            file.write(content[end:].rstrip(b"\n") + b"\n")
        with self.records_file.open("r+b") as file:
            file.truncate(end)
        self.recovered = (
            f"{self.records_file}: the last line ({len(content) - end} bytes) was not a whole record; "
            f"it was moved to {damaged}, and its trial runs again"
        )

    def append(self, record: TrialRecord) -> None:
        """Add a record and wait until it is on the disk. What is already there stays whole if the disk is full."""
        line = (record.to_json() + "\n").encode()
        try:
            with self.records_file.open("ab", buffering=0) as file:
                before = os.fstat(file.fileno()).st_size
                try:
                    if file.write(line) != len(line):
                        raise OSError(28, "No space left on device")
                    os.fsync(file.fileno())
                except OSError:
                    os.ftruncate(file.fileno(), before)
                    raise
        except OSError as error:
            raise StemlabError(
                f"{self.records_file}: cannot be written: {error.strerror}; earlier records are intact, "
                "make room and use --resume"
            ) from None
        self._write_trial(record)

    def _write_trial(self, record: TrialRecord) -> None:
        folder = self._folder_of(record)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StemlabError(f"{folder}: cannot be made: {error.strerror}") from None
        if record.curve:
            text = io.StringIO()
            writer = csv.DictWriter(text, list(record.curve[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(record.curve)
            write_text(folder / "curve.csv", text.getvalue())
        if record.error:
            write_text(folder / "log", record.error + "\n")

    def _folder_of(self, record: TrialRecord) -> Path:
        return self.path / "trials" / record.trial

    def records(self) -> list[TrialRecord]:
        """Return all whole records in the order they were written."""
        return list(self._read())

    def _read(self) -> Iterator[TrialRecord]:
        if not self.records_file.exists():
            return
        lines = self.records_file.read_bytes().rstrip(b"\n").split(b"\n")
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield TrialRecord.from_dict(json.loads(line))
            except (ValueError, TypeError) as error:
                if number == len(lines):  # still being written, or torn: who resumes the study mends it, and says so
                    return
                raise StudyError(f"{self.records_file}:{number}: not a record: {error}") from None

    def forget_states(self) -> None:
        """Remove what trials kept to go on from: nobody will."""
        for state in (self.path / "trials").glob(f"*/{STATE}"):
            with contextlib.suppress(OSError):
                state.unlink()

    def write_json(self, name: str, data: Any) -> Path:
        """Write one of the folder's JSON files; return its path."""
        write_text(self.path / name, dump_json(data))
        return self.path / name

    def read_json(self, name: str) -> Any:
        """Return the content of one of the folder's JSON files; StudyError where it is missing or broken."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StudyError(f"{self.path / name}: cannot be read: {error}") from None

    def close(self) -> None:
        """Give up the lock."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


class TrainingFolder(StudyFolder):
    """`runs/<name>/` of a single training: trial.yaml, its record, curve.csv, and the model as timm reads it."""

    document = "trial.yaml"
    what = "training"

    def _folder_of(self, record: TrialRecord) -> Path:
        return self.path


def folder_for(name: str, out: str | os.PathLike[str] | None, taken_up: bool) -> Path:
    """Return `out`, or the first of runs/<name>, runs/<name>-2, ... that is free; if taken up the one before it."""
    if out is not None:
        if not os.fspath(out).strip():
            raise SpecError("out (--out) is empty; expected the path of a folder")
        return Path(out)
    number, folder, before = 1, Path("runs") / name, None
    while folder.exists():
        number, folder, before = number + 1, Path("runs") / f"{name}-{number + 1}", folder
    return before if taken_up and before is not None else folder
