"""Screening: of the candidates that a proposer has made, the one with the best score is tried first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ..candidate import Candidate
from ..spec import TrialSpec
from ..spec.search import ScreenSpec
from .proposer import Proposer
from .tuners import Values

Score = Callable[[TrialSpec], float | None]
"""Gives the score of an untrained model, larger being better; None where it has none."""


class Screened:
    """A proposer that lets a pool of another one's candidates wait, and proposes the best scored of them.

    A candidate without a score comes behind those that have one; of equals the one that has waited longest comes first.
    None is dropped: once the other proposer has no more, the pool is emptied in the same order. Everything follows from
    the scores and the order of calls, so a resumed search retraces its steps.
    """

    def __init__(
        self,
        proposer: Proposer,
        screen: ScreenSpec,
        score: Score | None = None,
        known: Mapping[str, float] | None = None,
    ) -> None:
        """Wrap a proposer. `known` are scores by identity that need not be worked out again, those on record."""
        self.proposer, self.screen = proposer, screen
        self._score = score or _scorer(screen)
        self._scores: dict[str, float | None] = dict(known or {})
        self._pool: list[tuple[float, Candidate]] = []
        self._exhausted = False

    def propose(self) -> Candidate | None:
        """Fill the pool and return its best; None where nothing is left."""
        while not self._exhausted and len(self._pool) < self.screen.pool:
            candidate = self.proposer.propose()
            if candidate is None:
                self._exhausted = True
            else:
                score = self.score_of(candidate)
                self._pool.append((-math.inf if score is None else score, candidate))
        if not self._pool:
            return None
        best = max(self._pool, key=lambda entry: entry[0])  # the first of equals
        self._pool.remove(best)
        return best[1]

    def tell(self, candidate: Candidate, values: Values | None) -> None:
        """Hand a result on."""
        self.proposer.tell(candidate, values)

    @property
    def waiting(self) -> tuple[Candidate, ...]:
        """The candidates that were not tried, those that come next first."""
        return tuple(candidate for _, candidate in sorted(self._pool, key=lambda entry: -entry[0]))

    def score_of(self, candidate: Candidate) -> float | None:
        """Return a candidate's score, worked out once; of several seeds (or draws) it is that of the first trial."""
        identity = candidate.identity
        if identity not in self._scores:
            self._scores[identity] = self._score(candidate.trials[0])
        return self._scores[identity]


def _scorer(screen: ScreenSpec) -> Score:
    from ..train.screens import score  # torch, only where a search has a screen

    # The recipe is no part of a score: candidates that differ in it alone share theirs.
    found: dict[tuple[str, str, int], float | None] = {}

    def cached(trial: TrialSpec) -> float | None:
        key = (trial.model.digest, trial.data.digest, trial.seed)
        if key not in found:
            found[key] = score(trial, screen.by)
        return found[key]

    return cached
