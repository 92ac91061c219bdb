"""The source of an ablation: every arm on every draw and seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..candidate import Candidate
from ..records import TrialRecord
from .loop import Job
from .packs import together


class Cells:
    """The trials of an ablation. All arms of a draw and seed stand together, so that what is finished can be compared.

    `candidates` are those of `Design.cells`, in its order: a cell's place is the `proposal` of its trials. Where as
    many as `pack` trials are trained as one, those stand together.
    """

    def __init__(self, candidates: Sequence[Candidate], arms: int, seeds: Sequence[int], pack: int = 1) -> None:
        self.total = len(candidates) * len(seeds)
        self._jobs = self._in_order(candidates, arms, len(seeds))
        if pack > 1:
            self._jobs = iter(together(list(self._jobs), pack))

    @staticmethod
    def _in_order(candidates: Sequence[Candidate], arms: int, seeds: int) -> Iterator[Job]:
        for first in range(0, len(candidates), arms):
            for seed in range(seeds):
                for place in range(first, first + arms):
                    candidate = candidates[place]
                    yield Job(candidate.trials[seed], place, candidate.assignments[seed])

    def next(self) -> Job | None:
        """Return the next trial."""
        return next(self._jobs, None)

    def done(self, job: Job, record: TrialRecord) -> None:
        """Nothing depends on a result."""
