"""Proposers: what to try next. One wrapper of ours around all of NNI's tuners."""

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

_DRAWS = 200
"""How often the tuner may answer with a point that is infeasible or known, before we draw ourselves."""

_RANDOM_DRAWS = 20_000

_log = logging.getLogger(__name__)


class Proposer(Protocol):
    """What a search asks of a proposer."""

    def propose(self) -> Candidate | None:
        """Return a feasible candidate that was not proposed before; None where there is none left."""

    def tell(self, candidate: Candidate, values: tuple[float, ...] | None) -> None:
        """Take one result: a value for each objective, or None where the candidate diverged or failed."""


class NniProposer:
    """An NNI tuner that proposes only feasible, matched and new candidates, and never raises into the search.

    Results are paired by the candidate's own identity, whatever their order. A candidate without a finite score
    is told to the tuner as the worst one seen so far, so that it learns to keep away. Everything follows from the
    seed and the order of calls: telling the same results between the same proposals gives the same proposals.
    """

    def __init__(self, candidates: Candidates[SearchSpec]) -> None:
        settings = candidates.study.search
        self.candidates = candidates
        self.sign = settings.objectives[0].sign
        mode = "maximize" if self.sign > 0 else "minimize"
        self.tuner: Any = tuners.make(
            settings.tuner, mode, settings.tuner_seed, settings.tuner_options, settings.trials
        )
        self.rng = random.Random(settings.tuner_seed)
        self.seen: set[str] = set()
        self.open: dict[str, tuple[int, dict[str, Any]]] = {}
        self.worst: float | None = None
        self.asked = 0
        self.broken = not candidates.holes
        if not self.broken:
            self.tuner.update_search_space(tuners.to_nni(settings.tuner, candidates.holes))

    def propose(self) -> Candidate | None:
        """Ask the tuner until a candidate is feasible and new; draw at random where it gives up."""
        for _ in range(_DRAWS):
            answer = self._ask()
            if answer is None:
                break
            number, parameters, point = answer
            candidate = self._new(point)
            if candidate is not None:
                self.open[candidate.identity] = (number, parameters)
                return candidate
            self._withdraw(number)
        return self._draw()

    def tell(self, candidate: Candidate, values: tuple[float, ...] | None) -> None:
        """Give the tuner the result of one of its own proposals."""
        score = None if values is None else values[0]
        if score is not None and math.isfinite(score):
            if self.worst is None or self.sign * score < self.sign * self.worst:
                self.worst = score
        else:
            score = self.worst
        asked = self.open.pop(candidate.identity, None)
        if asked is None or self.broken:
            return
        number, parameters = asked
        if score is None:
            self._withdraw(number)
            return
        try:
            self.tuner.receive_trial_result(number, parameters, score)
            self.tuner.trial_end(number, True)
        except Exception as error:
            self._give_up("a result", error)

    def _ask(self) -> tuple[int, dict[str, Any], Point] | None:
        """Return (number, NNI's parameters, our point), or None where the tuner has nothing more to say."""
        if self.broken:
            return None
        self.asked += 1
        try:
            parameters = self.tuner.generate_parameters(self.asked)
            return self.asked, parameters, tuners.from_nni(self.candidates.holes, parameters)
        except Exception as error:
            if type(error).__name__ != "NoMoreTrialError":
                self._give_up("a proposal", error)
            return None

    def _withdraw(self, number: int) -> None:
        try:
            self.tuner.trial_end(number, False)
        except Exception as error:
            self._give_up("a withdrawn proposal", error)

    def _give_up(self, what: str, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        _log.warning("NNI's tuner failed on %s (%s); going on with random draws", what, reason)
        self.broken = True

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
