"""The loop of a search: propose, run, record, tell.

Which results a proposal may see is decided by its index, never by the clock: proposal n is made when the results of
the first n - 2 * (concurrency - 1) are in, and those alone have been told. So the same study gives the same
proposals on a busy machine and on an idle one, and a resumed study retraces its own steps before it goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..candidate import Candidate
from ..records import StudyFolder, TrialRecord
from ..spec import SearchSettings, TrialSpec
from .proposer import Proposer
from .runner import Runner


class Reporter(Protocol):
    """Who watches a search. Calls come from several threads."""

    def begin(self, folder: Path, total: int, slots: int) -> None:
        """The search begins: where it is kept, how many trials there will be at most, and how many run at a time."""

    def started(self, trial: str, proposal: int, seed: int) -> None:
        """A trial was handed to the runner."""

    def epoch(self, trial: str, row: dict[str, float]) -> None:
        """A trial finished an epoch."""

    def finished(self, record: TrialRecord, reused: bool) -> None:
        """A trial ended, or was found finished in the folder."""

    def note(self, text: str) -> None:
        """Something worth a line."""


@dataclass
class _Proposal:
    candidate: Candidate
    records: dict[str, TrialRecord] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return len(self.records) == len(self.candidate.trials)

    def score(self, metric: str) -> float | None:
        """The mean of the metric over the seeds; None where a seed diverged or failed."""
        # In the order of the seeds, not of the clock: a sum of floats depends on it.
        records = [self.records[trial.digest] for trial in self.candidate.trials]
        if any(record.status != "ok" or metric not in record.metrics for record in records):
            return None
        return sum(record.metrics[metric] for record in records) / len(records)


class SearchLoop:
    """Keeps a runner busy with a proposer's candidates and writes what comes of them."""

    def __init__(
        self,
        settings: SearchSettings,
        proposer: Proposer,
        runner: Runner,
        folder: StudyFolder,
        reporter: Reporter,
    ) -> None:
        self.settings, self.proposer, self.runner = settings, proposer, runner
        self.folder, self.reporter = folder, reporter
        self.known = {record.trial: record for record in folder.records()}
        self.proposals: list[_Proposal] = []
        self.waiting: deque[tuple[int, TrialSpec]] = deque()
        self.running: dict[Future[TrialRecord], int] = {}
        self.told = 0
        self.exhausted = False

    def run(self) -> None:
        """Search until all proposals are recorded or the space is exhausted; an interrupt leaves what is finished."""
        self.reporter.begin(self.folder.path, self.settings.trials * len(self.settings.seeds), self.runner.slots)
        pool = ThreadPoolExecutor(self.runner.slots, thread_name_prefix="trial")
        try:
            while True:
                self._fill(pool.submit)
                if not self.running:
                    break
                for future in wait(self.running, return_when=FIRST_COMPLETED).done:
                    self._record(self.running.pop(future), future.result())
        finally:
            self.runner.close()
            pool.shutdown(wait=True, cancel_futures=True)

    def _fill(self, submit: Callable[..., Future[TrialRecord]]) -> None:
        """Hand trials to the runner until it is full or nothing more may be proposed yet."""
        while len(self.running) < self.runner.slots:
            if not self.waiting and not self._propose():
                return
            if not self.waiting:
                continue
            proposal, trial = self.waiting.popleft()
            self.reporter.started(trial.digest, proposal, trial.seed)
            self.running[submit(self.runner.run, trial, self._progress(trial.digest))] = proposal

    def _progress(self, digest: str) -> Callable[[dict[str, float]], None]:
        return lambda row: self.reporter.epoch(digest, row)

    def _propose(self) -> bool:
        """Make the next proposal if its turn has come; queue those of its trials that are not recorded yet."""
        number = len(self.proposals)
        visible = max(0, number - 2 * (self.settings.concurrency - 1))
        unfinished = sum(not p.complete for p in self.proposals[-2 * self.settings.concurrency :])
        if (
            self.exhausted
            or number == self.settings.trials
            or unfinished >= self.settings.concurrency
            or not all(p.complete for p in self.proposals[self.told : visible])
        ):
            return False
        metric = self.settings.objective.metric
        while self.told < visible:
            proposal = self.proposals[self.told]
            self.proposer.tell(proposal.candidate, proposal.score(metric))
            self.told += 1
        candidate = self.proposer.propose()
        if candidate is None:
            self.exhausted = True
            self.reporter.note(f"the space is exhausted: after {number} proposals there is no new feasible point")
            return False
        self.proposals.append(_Proposal(candidate))
        for trial in candidate.trials:
            if trial.digest in self.known:
                self._keep(number, self.known[trial.digest], reused=True)
            else:
                self.waiting.append((number, trial))
        return True

    def _record(self, number: int, record: TrialRecord) -> None:
        record = record.with_proposal(number, self.proposals[number].candidate.assignment)
        self.folder.append(record)
        self._keep(number, record, reused=False)

    def _keep(self, number: int, record: TrialRecord, reused: bool) -> None:
        self.proposals[number].records[record.trial] = record
        self.reporter.finished(record, reused)
