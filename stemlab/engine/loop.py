"""The loop of a study: take a trial from its source, run it, record it, tell the source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ..records import StudyFolder, TrialRecord
from ..spec import Floor, Order, TrialSpec
from ..spec.packs import order_key
from .runner import Runner


class Reporter(Protocol):
    """Who watches a study. Calls come from several threads."""

    def preparing(self, what: str, done: int, total: int) -> None:
        """Before anything is trained: something was done to so many images of a data set."""

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
    """A trial to run, and its place in the study: which proposal, and how the holes were filled.

    Trials of different `pack`s are not trained as one.
    """

    trial: TrialSpec
    proposal: int
    assignment: dict[str, Any]
    until: int | None = None
    floor: Floor | None = None
    screen: float | None = None
    pack: int | None = None

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


Row = dict[str, Any]


@dataclass(frozen=True)
class Packing:
    """How trials are packed: at most so many at a time, by a runner's `run_pack`."""

    most: int
    run: Callable[[Sequence[Order], Callable[[int, Row], None]], list[TrialRecord]]


class TrialLoop:
    """Keeps a runner busy with a source's trials and writes what comes of them.

    A trial that the folder has on record, in `known`, is not run again; nor is one on record in `elsewhere` (digest ->
    record), of which the folder gets a copy. With `packing`, trials that can be packed and come from the source one
    behind the other are run as one.
    """

    def __init__(
        self,
        source: Source,
        runner: Runner,
        folder: StudyFolder,
        reporter: Reporter,
        known: Iterable[TrialRecord] = (),
        elsewhere: Mapping[str, TrialRecord] | None = None,
        packing: Packing | None = None,
    ) -> None:
        self.source, self.runner = source, runner
        self.folder, self.reporter = folder, reporter
        self.elsewhere = elsewhere or {}
        self.known = {(record.proposal, record.trial, record.until): record for record in known}
        self.packing = packing
        self.ahead: Job | None = None
        self.running: dict[Future[list[TrialRecord]], list[Job]] = {}

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
                    for job, record in zip(self.running.pop(future), future.result(), strict=True):
                        self._record(job, record, reused=False)
        finally:
            self.runner.close()
            pool.shutdown(wait=True, cancel_futures=True)

    def _fill(self, submit: Callable[..., Future[list[TrialRecord]]]) -> None:
        """Hand trials to the runner until it is full or there is nothing more to run yet."""
        while len(self.running) < self.runner.slots:
            jobs = self._together()
            if not jobs:
                return
            for job in jobs:
                self.reporter.started(job.trial.digest, job.proposal, job.trial.seed)
            self.running[submit(self._run, jobs)] = jobs

    def _run(self, jobs: list[Job]) -> list[TrialRecord]:
        progress = [self._progress(job.trial.digest) for job in jobs]
        if self.packing is None or len(jobs) == 1:
            return [self.runner.run(jobs[0].order, progress[0])]
        return self.packing.run([job.order for job in jobs], lambda place, row: progress[place](row))

    def _together(self) -> list[Job]:
        """Return the next trial to run, and those behind it that are to be packed with it; nothing if none is left."""
        first, self.ahead = self.ahead or self._next(), None
        jobs = [] if first is None else [first]
        key = order_key(jobs[0].order) if jobs and self.packing else None
        while key is not None and self.packing is not None and len(jobs) < self.packing.most:
            job = self._next()
            if job is None or job.pack != jobs[0].pack or order_key(job.order) != key:
                self.ahead = job
                break
            jobs.append(job)
        return jobs

    def _next(self) -> Job | None:
        """Return the next trial that is not on record."""
        while (job := self.source.next()) is not None:
            digest = job.trial.digest
            known = self.known.get((job.proposal, digest, job.until))
            if known is not None:
                self._keep(job, known, reused=True)
            elif digest in self.elsewhere:
                self._record(job, self.elsewhere[digest], reused=True)
            else:
                return job
        return None

    def _progress(self, digest: str) -> Callable[[dict[str, float]], None]:
        return lambda row: self.reporter.epoch(digest, row)

    def _record(self, job: Job, record: TrialRecord, reused: bool) -> None:
        record = replace(record, proposal=job.proposal, assignment=job.assignment, until=job.until, screen=job.screen)
        self.folder.append(record)
        self._keep(job, record, reused)

    def _keep(self, job: Job, record: TrialRecord, reused: bool) -> None:
        self.source.done(job, record)
        self.reporter.finished(record, reused)
