"""Proposers: what to try next. One wrapper of ours around all tuners."""

from __future__ import annotations

import logging
import math
import random
from typing import Any, Protocol

from ..candidate import Candidate, Candidates
from ..errors import InfeasibleError
from ..space import Point
from ..spec import SearchSpec
from . import tuners
from .tuners import Tuner, Values

_RANDOM_DRAWS = 20_000

_log = logging.getLogger(__name__)


class Proposer(Protocol):
    """What a search asks of a proposer."""

    def propose(self) -> Candidate | None:
        """Return a feasible candidate that was not proposed before; None where there is none left."""

    def tell(self, candidate: Candidate, values: Values | None) -> None:
        """Take one result: a value for each objective, or None where the candidate diverged, failed or was too slow."""


class TunerProposer:
    """A tuner that proposes only feasible, matched and new candidates, and never raises into the search.

    Results are paired by the candidate's own identity, whatever their order. A tuner that raises is dismissed, with a
    warning, and the search goes on with random draws. Everything follows from the seed and the order of calls: telling
    the same results between the same proposals gives the same proposals.
    """

    def __init__(self, candidates: Candidates[SearchSpec]) -> None:
        settings = candidates.study.search
        self.candidates = candidates
        self.name = settings.tuner
        self.signs = [objective.sign for objective in settings.objectives]
        self.tuner: Tuner | None = tuners.start(settings, candidates.holes) if candidates.holes else None
        self.rng = random.Random(settings.tuner_seed)
        self.seen: set[str] = set()
        self.open: dict[str, Any] = {}
        self.worst: Values | None = None

    def propose(self) -> Candidate | None:
        """Ask the tuner until a candidate is feasible and new; draw at random where it gives up."""
        for _ in range(self.tuner.attempts if self.tuner else 0):
            answer = self._ask()
            if answer is None:
                break
            handle, point = answer
            candidate = self._new(point)
            if candidate is not None:
                self.open[candidate.identity] = handle
                return candidate
            self._withdraw(handle)
        return self._draw()

    def tell(self, candidate: Candidate, values: Values | None) -> None:
        """Give the tuner the result of one of its own proposals."""
        if values is not None and all(map(math.isfinite, values)):
            pairs = zip(values, self.worst or values, self.signs, strict=True)
            self.worst = tuple(min(pair, key=lambda value: sign * value) for *pair, sign in pairs)
        else:
            values = None
        handle = self.open.pop(candidate.identity, None)
        if handle is None or self.tuner is None:
            return
        if self.worst is None:
            self._withdraw(handle)
            return
        try:
            self.tuner.tell(handle, values, self.worst)
        except Exception as error:
            self._dismiss("a result", error)

    def _ask(self) -> tuple[Any, Point] | None:
        if self.tuner is None:
            return None
        try:
            return self.tuner.ask()
        except Exception as error:
            self._dismiss("a proposal", error)
            return None

    def _withdraw(self, handle: Any) -> None:
        if self.tuner is None:
            return
        try:
            self.tuner.withdraw(handle)
        except Exception as error:
            self._dismiss("a withdrawn proposal", error)

    def _dismiss(self, what: str, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        _log.warning("the tuner %s failed on %s (%s); going on with random draws", self.name, what, reason)
        self.tuner = None

    def _draw(self) -> Candidate | None:
        """Return a new candidate without the tuner: the whole space where it is small, many draws where it is not."""
        for tried, point in enumerate(self.candidates.points(self.rng)):
            candidate = self._new(point)
            if candidate is not None:
                return candidate
            if tried == _RANDOM_DRAWS:
                break
        return None

    def _new(self, point: Point) -> Candidate | None:
        try:
            candidate = self.candidates.make(point)
        except InfeasibleError:
            return None
        if candidate.identity in self.seen:
            return None
        self.seen.add(candidate.identity)
        return candidate
