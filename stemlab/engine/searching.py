"""The source of a search: a proposer's candidates, each trained once per seed.

Which results a proposal may see is decided by its index, never by the clock: proposal n is made when the results of
the first n - 2 * (concurrency - 1) are in, and those alone have been told. So the same study gives the same
proposals on a busy machine and on an idle one, and a resumed study retraces its own steps before it goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ..candidate import Candidate
from ..records import TrialRecord
from ..spec import SearchSettings
from .loop import Job
from .proposer import Proposer


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


class Proposals:
    """The trials of a search, in the order in which they are proposed. `note` gets what is worth a line."""

    def __init__(self, settings: SearchSettings, proposer: Proposer, note: Callable[[str], None]) -> None:
        self.settings, self.proposer, self.note = settings, proposer, note
        self.total = settings.trials * len(settings.seeds)
        self.proposals: list[_Proposal] = []
        self.waiting: deque[Job] = deque()
        self.told = 0
        self.exhausted = False

    def next(self) -> Job | None:
        """Return the next trial; None where all are proposed, or the next proposal must wait for results."""
        if not self.waiting and not self._propose():
            return None
        return self.waiting.popleft()

    def done(self, job: Job, record: TrialRecord) -> None:
        """Take a result; the proposer is told when its turn has come."""
        self.proposals[job.proposal].records[record.trial] = record

    def _propose(self) -> bool:
        """Make the next proposal if its turn has come."""
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
        metric = self.settings.objectives[0].metric
        while self.told < visible:
            proposal = self.proposals[self.told]
            score = proposal.score(metric)
            self.proposer.tell(proposal.candidate, None if score is None else (score,))
            self.told += 1
        candidate = self.proposer.propose()
        if candidate is None:
            self.exhausted = True
            self.note(f"the space is exhausted: after {number} proposals there is no new feasible point")
            return False
        self.proposals.append(_Proposal(candidate))
        self.waiting.extend(Job(trial, number, candidate.assignment) for trial in candidate.trials)
        return True
