"""Watching a study: a live view on a terminal, plain lines elsewhere. Everything goes to stderr."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stemlab.data.contents import in_lines

from .output import complain, console

if TYPE_CHECKING:
    from rich.progress import TaskID

    from stemlab.records import TrialRecord


@contextmanager
def watcher(kind: str) -> Iterator[Lines]:
    """Give the reporter that fits stderr, for a "search" or an "ablation"."""
    reporter = Live(kind) if sys.stderr.isatty() else Lines(kind)
    try:
        yield reporter
    finally:
        reporter.close()


class Lines:
    """One line a finished trial."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.folder: Path | None = None
        self.total = self.done = 0
        self.best: float | None = None
        self.lock = threading.Lock()
        self._in_lines = in_lines(self.note)

    def preparing(self, what: str, done: int, total: int) -> None:
        """Say every ten seconds how far a data set is prepared."""
        self._in_lines(what, done, total)

    def begin(self, folder: Path, total: int, slots: int) -> None:
        """Say how much there is to do."""
        self.folder, self.total = folder, total
        self.note(f"{total} trials, {slots} at a time, in {folder}")

    def started(self, trial: str, proposal: int, seed: int) -> None:
        """Say nothing."""

    def epoch(self, trial: str, row: dict[str, float]) -> None:
        """Say nothing."""

    def finished(self, record: TrialRecord, reused: bool) -> None:
        """Say how a trial ended."""
        with self.lock:
            self.done += 1
            top1 = record.metrics.get("top1")
            if top1 is not None and (self.best is None or top1 > self.best):
                self.best = top1
        self.note(f"[{self.done}/{self.total}] {self.describe(record, reused)}")

    def describe(self, record: TrialRecord, reused: bool) -> str:
        """Return one line on a finished trial."""
        if record.status != "ok":
            reason = (record.error or "").strip().splitlines()[-1:] or [""]
            return f"trial {record.trial} {record.status}: {reason[0]}"
        how = f"took {record.metrics['seconds']:.1f} s"
        if reused:
            how = "was recorded before" if record.reused_from is None else f"is taken from {record.reused_from}"
        return f"trial {record.trial} top1 {record.metrics['top1']:.4f}, {how}{self.best_so_far()}"

    def best_so_far(self) -> str:
        """Return what a search has come to; in an ablation nothing is sought."""
        return f", best so far {self.best:.4f}" if self.best is not None and self.kind == "search" else ""

    def note(self, text: str) -> None:
        """Print a line."""
        complain(text)

    def close(self) -> None:
        """Nothing to put away."""


class Live(Lines):
    """A progress bar, the best so far, and the trials that run."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[info]}"),
            TimeElapsedColumn(),
            console=console(stderr=True),
            transient=True,
        )
        self.bars: dict[str, TaskID] = {}
        self.overall = self.progress.add_task(kind, total=None, info="starting workers")
        self.progress.start()

    def preparing(self, what: str, done: int, total: int) -> None:
        """Show how far a data set is prepared."""
        if what not in self.bars:
            self.bars[what] = self.progress.add_task(what, total=total, info="images")
        self.progress.update(self.bars[what], completed=done, visible=done < total)

    def begin(self, folder: Path, total: int, slots: int) -> None:
        """Show the whole as a bar."""
        self.folder, self.total = folder, total
        self.progress.update(self.overall, total=total, info=f"{slots} at a time")

    def started(self, trial: str, proposal: int, seed: int) -> None:
        """Show one more running trial."""
        self.bars[trial] = self.progress.add_task(f"  {trial} #{proposal} seed {seed}", total=None, info="starting")

    def epoch(self, trial: str, row: dict[str, float]) -> None:
        """Move a trial's bar."""
        task = self.bars.get(trial)
        if task is not None:
            info = f"loss {row['loss']:.3f} top1 {row['top1']:.4f}"
            self.progress.update(task, completed=row["epoch"], total=row["epochs"], info=info)

    def finished(self, record: TrialRecord, reused: bool) -> None:
        """Take the trial's bar away and move the whole."""
        super().finished(record, reused)
        task = self.bars.pop(record.trial, None)
        if task is not None:
            self.progress.remove_task(task)
        self.progress.update(self.overall, completed=self.done, info=self.best_so_far().removeprefix(", "))

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self.progress.console.print(text, markup=False)

    def close(self) -> None:
        """Take the bars away."""
        self.progress.stop()
