"""Successive halving and Hyperband (arXiv 1502.07943, 1603.06560), synchronous: the clock changes nothing.

Proposals come in brackets. All of a bracket are trained for a few epochs; of these the best are trained on for `eta`
times as long, and so on up to the whole recipe. While the last of a bracket run, the next one is begun, unless one
trial runs at a time: the proposals of bracket b have seen all results of the brackets before b - 1, and no others.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from ..records import TrialRecord
from ..spec import FidelitySpec
from .loop import Job
from .searching import Progress, Proposal


@dataclass(frozen=True)
class Plan:
    """A bracket to be: how many proposals, and the epochs to which each rung trains."""

    size: int
    rungs: tuple[int, ...]

    def survivors(self, rung: int, eta: int) -> int:
        """Return how many proposals a rung has."""
        return max(1, int(self.size // eta**rung))


def plans(fidelity: FidelitySpec, epochs: int, proposals: int) -> list[Plan]:
    """Return the brackets of a search of so many proposals, the last one smaller where they do not divide."""
    eta = fidelity.eta
    rungs = [epochs]
    while rungs[0] // eta >= fidelity.min_epochs:
        rungs.insert(0, rungs[0] // eta)
    most = len(rungs) - 1
    made: list[Plan] = []
    left, s = proposals, most
    while left:
        wanted = eta**most if fidelity.kind == "halving" else math.ceil((most + 1) / (s + 1) * eta**s)
        made.append(Plan(min(left, wanted), tuple(rungs if fidelity.kind == "halving" else rungs[most - s :])))
        left -= made[-1].size
        s = (s or most + 1) - 1
    return made


@dataclass
class _Bracket:
    plan: Plan
    rung: int = 0
    members: list[Proposal] = field(default_factory=list)
    alive: list[Proposal] = field(default_factory=list)
    closed: bool = False

    @property
    def until(self) -> int | None:
        """The epoch of the rung; None for the last one, which trains to the end."""
        return self.plan.rungs[self.rung] if self.rung < len(self.plan.rungs) - 1 else None


class Brackets:
    """The trials of a search by successive halving or Hyperband."""

    def __init__(self, progress: Progress, fidelity: FidelitySpec, epochs: int) -> None:
        self.progress, self.fidelity = progress, fidelity
        settings = progress.settings
        self.plans = deque(plans(fidelity, epochs, settings.trials))
        rungs = (plan.survivors(rung, fidelity.eta) for plan in self.plans for rung in range(len(plan.rungs)))
        self.total = settings.trials_each * sum(rungs)
        self.ahead = 1 if settings.concurrency == 1 else 2
        self.waiting: deque[Job] = deque()
        self.brackets: list[_Bracket] = []
        self.filling: _Bracket | None = None
        self.told = 0

    def next(self) -> Job | None:
        """Return the next trial: of the oldest bracket that has one to train on, else of a new proposal."""
        if not self.waiting:
            for bracket in self.brackets[self.told :]:
                self._advance(bracket)
                if self.waiting:
                    break
            else:
                self._propose()
        return self.waiting.popleft() if self.waiting else None

    def done(self, job: Job, record: TrialRecord) -> None:
        """Take a result of a rung."""
        self.progress.proposals[job.proposal].records[record.trial] = record

    def _advance(self, bracket: _Bracket) -> None:
        """Train the best of a rung on, once all of it are in; close the bracket behind its last rung."""
        if bracket is self.filling or bracket.closed or not all(p.complete(bracket.until) for p in bracket.alive):
            return
        settings = self.progress.settings
        sign = settings.objectives[0].sign
        # Equals keep the order in which they were proposed.
        found = [(values, p) for p in bracket.alive if (values := p.values(settings)) is not None]
        ranked = [p for _, p in sorted(found, key=lambda pair: -sign * pair[0][0])]
        if bracket.until is None or not ranked:
            bracket.closed = True
            return
        bracket.rung += 1
        bracket.alive = ranked[: bracket.plan.survivors(bracket.rung, self.fidelity.eta)]
        for proposal in sorted(bracket.alive, key=lambda p: p.number):
            self.waiting.extend(self.progress.jobs(proposal, bracket.until))

    def _propose(self) -> None:
        """Make a proposal of the bracket that is being filled, or begin one."""
        if self.filling is None:
            visible = max(0, len(self.brackets) + 1 - self.ahead)
            before = self.brackets[:visible]
            if not self.plans or self.progress.stopped or not all(bracket.closed for bracket in before):
                return
            for bracket in before[self.told :]:
                for proposal in bracket.members:  # each by what it came to at the last rung it reached
                    self.progress.tell(proposal)
            self.told = visible
            self.filling = _Bracket(self.plans.popleft())
            self.brackets.append(self.filling)
        bracket = self.filling
        made = self.progress.propose()
        if made is not None:
            bracket.members.append(made)
            bracket.alive.append(made)
            self.waiting.extend(self.progress.jobs(made, bracket.until))
        if made is None or len(bracket.members) == bracket.plan.size:
            self.filling = None
