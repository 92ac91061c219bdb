"""The loop of a study: take a trial from its source, run it, record it, tell the source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ..records import StudyFolder, TrialRecord
from ..spec import Floor, Order, TrialSpec
from .runner import Runner


class Reporter(Protocol):
    """Who watches a study. Calls come from several threads."""

    def begin(self, folder: Path, total: int, slots: int) -> None:
        """The study begins: where it is kept, how many trials there will be at most, and how many run at a time."""

    def started(self, trial: str, proposal: int, seed: int) -> None:
        """A trial was handed to the runner."""

    def epoch(self, trial: str, row: dict[str, float]) -> None:
        """A trial finished an epoch."""

    def finished(self, record: TrialRecord, reused: bool) -> None:
        """A trial ended, or was found finished in the folder or in another study."""

    def note(self, text: str) -> None:
        """Something worth a line."""


@dataclass(frozen=True)
class Job:
    """A trial to run, and its place in the study: which proposal, and how the holes were filled."""

    trial: TrialSpec
    proposal: int
    assignment: dict[str, Any]
    until: int | None = None
    floor: Floor | None = None
    screen: float | None = None

    @property
    def order(self) -> Order:
        """What the runner is asked to do."""
        return Order(trial=self.trial, until=self.until, floor=self.floor)


class Source(Protocol):
    """Where a study's trials come from: a tuner's proposals or a design."""

    total: int
    """How many trials there will be at most."""

    def next(self) -> Job | None:
        """Return the next trial; None where there is none, or none before another one is done."""

    def done(self, job: Job, record: TrialRecord) -> None:
        """Take the record of one of the trials."""


class TrialLoop:
    """Keeps a runner busy with a source's trials and writes what comes of them.

    A trial that the folder has on record, in `known`, is not run again; nor is one on record in `elsewhere` (digest ->
    record), of which the folder gets a copy.
    """

    def __init__(
        self,
        source: Source,
        runner: Runner,
        folder: StudyFolder,
        reporter: Reporter,
        known: Iterable[TrialRecord] = (),
        elsewhere: Mapping[str, TrialRecord] | None = None,
    ) -> None:
        self.source, self.runner = source, runner
        self.folder, self.reporter = folder, reporter
        self.elsewhere = elsewhere or {}
        self.known = {(record.proposal, record.trial, record.until): record for record in known}
        self.running: dict[Future[TrialRecord], Job] = {}

    def run(self) -> None:
        """Go on until the source has no more; an interrupt leaves what is finished."""
        self.reporter.begin(self.folder.path, self.source.total, self.runner.slots)
        pool = ThreadPoolExecutor(self.runner.slots, thread_name_prefix="trial")
        try:
            while True:
                self._fill(pool.submit)
                if not self.running:
                    break
                for future in wait(self.running, return_when=FIRST_COMPLETED).done:
                    self._record(self.running.pop(future), future.result(), reused=False)
        finally:
            self.runner.close()
            pool.shutdown(wait=True, cancel_futures=True)

    def _fill(self, submit: Callable[..., Future[TrialRecord]]) -> None:
        """Hand trials to the runner until it is full or there is nothing more to run yet."""
        while len(self.running) < self.runner.slots:
            job = self.source.next()
            if job is None:
                return
            digest = job.trial.digest
            known = self.known.get((job.proposal, digest, job.until))
            if known is not None:
                self._keep(job, known, reused=True)
            elif digest in self.elsewhere:
                self._record(job, self.elsewhere[digest], reused=True)
            else:
                self.reporter.started(digest, job.proposal, job.trial.seed)
                self.running[submit(self.runner.run, job.order, self._progress(digest))] = job

    def _progress(self, digest: str) -> Callable[[dict[str, float]], None]:
        return lambda row: self.reporter.epoch(digest, row)

    def _record(self, job: Job, record: TrialRecord, reused: bool) -> None:
        record = replace(record, proposal=job.proposal, assignment=job.assignment, until=job.until, screen=job.screen)
        self.folder.append(record)
        self._keep(job, record, reused)

    def _keep(self, job: Job, record: TrialRecord, reused: bool) -> None:
        self.source.done(job, record)
        self.reporter.finished(record, reused)
