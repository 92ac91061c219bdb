"""The source of a search: a proposer's candidates, each trained once per draw and seed.

Which results a proposal may see is decided by its index, never by the clock: proposal n is made when the results of
the first n - 2 * (concurrency - 1) are in, and those alone have been told. So the same study gives the same
proposals on a busy machine and on an idle one, and a resumed study retraces its own steps before it goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import get_args

from ..analysis.judging import judged
from ..candidate import Candidate
from ..records import TrialRecord
from ..spec import Floor, Objective, SearchSettings
from ..spec.quantity import Quantity
from .loop import Job
from .median import MedianRule
from .proposer import Proposer
from .tuners import Values


@dataclass
class Proposal:
    """A candidate in the search, and the last record of each of its trials."""

    number: int
    candidate: Candidate
    records: dict[str, TrialRecord] = field(default_factory=dict)

    def complete(self, until: int | None = None) -> bool:
        """Tell whether all its trials were trained to an epoch, or ended before."""
        trials = {trial.digest for trial in self.candidate.trials}
        # A rung that a resumed study finds on record may be followed by a later one, never preceded.
        return all(trial in self.records and self.records[trial].until == until for trial in trials)

    def values(self, settings: SearchSettings) -> Values | None:
        """Return what it has come to; None where it has no value of an objective."""
        values = [self._value(objective, settings) for objective in settings.objectives]
        known = tuple(value for value in values if value is not None)
        return known if len(known) == len(values) else None

    def _value(self, objective: Objective, settings: SearchSettings) -> float | None:
        # In the order of the trials, not of the clock: a sum of floats depends on it.
        records = [self.records[trial.digest] for trial in self.candidate.trials]
        if objective.metric in get_args(Quantity):
            return self.candidate.matched.quantity(objective.metric)
        each = [r.metrics.get(objective.metric) if r.status in ("ok", "pruned") else None for r in records]
        return judged(each, settings.judge, objective.sign)


class Progress:
    """How a search goes on: what was proposed and told, and when it is to stop.

    `note` gets what is worth a line. `hours` says how long the search has run, with what came before an interruption,
    and `score` what a candidate's screen gave, if it had one.
    """

    def __init__(
        self,
        settings: SearchSettings,
        proposer: Proposer,
        note: Callable[[str], None],
        hours: Callable[[], float] = lambda: 0.0,
        score: Callable[[Candidate], float | None] = lambda candidate: None,
    ) -> None:
        self.settings, self.proposer, self.note, self.hours = settings, proposer, note, hours
        self.score = score
        self.proposals: list[Proposal] = []
        self.stopped: str | None = None
        self._trials: set[tuple[int, str]] = set()
        self._best: list[Values] = []
        self._without = 0

    def propose(self) -> Proposal | None:
        """Make the next proposal; None where the search is at its end, of which `stopped` has the reason, if any."""
        if self.stopped or len(self.proposals) == self.settings.trials:
            return None
        reason = self._reason()
        candidate = None if reason else self.proposer.propose()
        if candidate is None:
            number = len(self.proposals)
            self.stopped = reason or f"the space is exhausted: after {number} proposals there is no new feasible point"
            self.note(self.stopped)
            return None
        proposal = Proposal(len(self.proposals), candidate)
        self.proposals.append(proposal)
        self._trials |= {(proposal.number, trial.digest) for trial in candidate.trials}
        return proposal

    def tell(self, proposal: Proposal) -> None:
        """Let the proposer know what a proposal has come to."""
        values = proposal.values(self.settings)
        self.proposer.tell(proposal.candidate, values)
        self._without += 1
        if values is None:
            return
        gains = tuple(o.sign * value for o, value in zip(self.settings.objectives, values, strict=True))
        if not any(all(b >= g for b, g in zip(best, gains, strict=True)) for best in self._best):
            self._best.append(gains)
            self._without = 0

    def jobs(self, proposal: Proposal, until: int | None = None, floor: Floor | None = None) -> list[Job]:
        """Return the trials of a proposal."""
        candidate, screen = proposal.candidate, self.score(proposal.candidate)
        return [
            Job(trial, proposal.number, assignment, until, floor, screen)
            for trial, assignment in zip(candidate.trials, candidate.assignments, strict=True)
        ]

    def _reason(self) -> str | None:
        """Return why the search is to stop here, if it is."""
        stop = self.settings.stop
        if stop is None:
            return None
        if stop.patience is not None and self._without >= stop.patience:
            return f"search.stop.patience: {self._without} proposals in turn were no better than those before"
        if stop.max_trials is not None and len(self._trials) + self.settings.trials_each > stop.max_trials:
            return f"search.stop.max_trials: {len(self._trials)} of {stop.max_trials} trials are spent"
        if stop.max_hours is not None and self.hours() >= stop.max_hours:
            return f"search.stop.max_hours: the search has run for {self.hours():.2f} hours"
        return None


class Proposals:
    """The trials of a search, in the order in which they are proposed."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.settings = progress, progress.settings
        self.total = self.settings.trials * self.settings.trials_each
        self.waiting: deque[Job] = deque()
        self.unfinished: set[int] = set()
        self.told = 0
        fidelity = self.settings.fidelity
        self.rule = MedianRule(fidelity, self.settings.objectives[0]) if fidelity else None

    def next(self) -> Job | None:
        """Return the next trial; None where all are proposed, or the next proposal must wait for results."""
        if not self.waiting and not self._propose():
            return None
        return self.waiting.popleft()

    def done(self, job: Job, record: TrialRecord) -> None:
        """Take a result; the proposer is told when its turn has come."""
        proposal = self.progress.proposals[job.proposal]
        proposal.records[record.trial] = record
        if proposal.complete():
            self.unfinished.discard(job.proposal)

    def _propose(self) -> bool:
        """Make the next proposal if its turn has come."""
        proposals = self.progress.proposals
        visible = max(0, len(proposals) - 2 * (self.settings.concurrency - 1))
        if len(self.unfinished) >= self.settings.concurrency or min(self.unfinished, default=visible) < visible:
            return False
        for proposal in proposals[self.told : visible]:
            self.progress.tell(proposal)
            if self.rule is not None:
                for record in proposal.records.values():
                    self.rule.add(record.curve)
        self.told = max(self.told, visible)
        made = self.progress.propose()
        if made is None:
            return False
        self.unfinished.add(made.number)
        self.waiting.extend(self.progress.jobs(made, floor=self._floor()))
        return True

    def _floor(self) -> Floor | None:
        """Return what a trial must reach, by the results that its proposal may see."""
        if self.rule is None or self.told < self.rule.fidelity.warmup:
            return None
        return self.rule.floor()
