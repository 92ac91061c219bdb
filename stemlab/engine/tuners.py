"""NNI's tuners, in our process: which there are, how each is made, and our spaces in NNI's words.

Measured on NNI 3.0: its tuners are plain Python that works without its manager. TPE's conditional choices work one
level deep only, so deeper holes become parameters of the outermost option that holds them; the ones that a point
leaves closed are drawn and ignored.
"""

from __future__ import annotations

import bisect
import logging
import math
import random
from collections import defaultdict
from importlib import metadata
from typing import Any, Protocol

import numpy as np

from ..analysis.pareto import places
from ..errors import EngineError
from ..space import Hole, Point
from ..spec import SearchSettings
from ..spec.search import OPTUNA_TUNERS

Values = tuple[float, ...]
"""One value for each objective, in the order of SearchSettings.objectives."""


class Tuner(Protocol):
    """What proposes points; it may repeat itself, propose what is infeasible, and raise."""

    attempts: int
    """How often it is worth asking again before a point is drawn without it."""

    def ask(self) -> tuple[Any, Point] | None:
        """Return a handle and a point; None where there is nothing more to propose."""

    def tell(self, handle: Any, values: Values | None, worst: Values) -> None:
        """Take the result of a point; None where it diverged or failed. `worst`: of all so far, by objective."""

    def withdraw(self, handle: Any) -> None:
        """Take back a point that is not tried."""


class NniTuner:
    """A tuner of NNI over our holes.

    These tuners know one number a trial. Of several objectives, that is its place among all trials so far (see
    analysis.pareto.places), given anew to all of them before each proposal: TPE and evolution go by their order alone.
    """

    def __init__(self, settings: SearchSettings, holes: tuple[Hole, ...]) -> None:
        self.holes = holes
        self.attempts = 10 if settings.tuner == "gp" else 200  # it thinks for 0.2 s, and insists on its best point
        self.signs = [objective.sign for objective in settings.objectives]
        mode = "minimize" if self.signs == [-1] else "maximize"
        self.tuner = make(settings.tuner, mode, settings.tuner_seed, settings.tuner_options, settings.trials)
        self.tuner.update_search_space(to_nni(settings.tuner, holes))
        self.asked = 0
        self.told: dict[int, Values] = {}
        self.is_new = False

    def ask(self) -> tuple[Any, Point] | None:
        """Return NNI's number and parameters, and our point."""
        from nni import NoMoreTrialError

        if self.is_new and hasattr(self.tuner, "rescore"):  # not so those that learn nothing
            self.is_new = False
            values = list(self.told.values())
            self.tuner.rescore(dict(zip(self.told, (-places(values, self.signs)).tolist(), strict=True)))
        self.asked += 1
        try:
            parameters = self.tuner.generate_parameters(self.asked)
        except NoMoreTrialError:
            return None
        return (self.asked, parameters), from_nni(self.holes, parameters)

    def tell(self, handle: Any, values: Values | None, worst: Values) -> None:
        """Give NNI the value, or the worst one so far, so that it learns to keep away from what does not train."""
        number, parameters = handle
        score = (values or worst)[0]
        if len(self.signs) > 1:
            self.told[number] = values or (math.nan,) * len(self.signs)
            self.is_new = True
        self.tuner.receive_trial_result(number, parameters, score)
        self.tuner.trial_end(number, True)

    def withdraw(self, handle: Any) -> None:
        """Tell NNI that the trial failed, which is how it forgets a point."""
        self.tuner.trial_end(handle[0], False)


def start(settings: SearchSettings, holes: tuple[Hole, ...]) -> Tuner:
    """Return the tuner of a search, about to propose."""
    if settings.tuner in OPTUNA_TUNERS:
        from .optuna_samplers import OptunaTuner

        return OptunaTuner(settings, holes)
    return NniTuner(settings, holes)


def require(name: str) -> None:
    """EngineError, with how to get it, unless what the tuner needs is installed."""
    version()
    if name in OPTUNA_TUNERS:
        from . import optuna_samplers

        optuna_samplers.require(name)


def make(name: str, mode: str, seed: int, options: dict[str, Any], trials: int) -> Any:
    """Return an NNI tuner: `mode` is "maximize" or "minimize"; SearchSettings has checked the rest."""
    _load_nni()
    if name == "tpe":
        return _tpe(mode, seed, options, trials)
    if name == "random":
        return _random(seed)
    if name == "grid":
        return _grid()
    if name == "gp":
        return _gp(mode, seed, options, trials)
    return _evolution(mode, seed, options, trials)


def version() -> str:
    """Return NNI's version, or an EngineError that says how to get it."""
    try:
        return metadata.version("nni")
    except metadata.PackageNotFoundError:
        raise EngineError("NNI is not installed; pip install nni==3.0") from None


def _load_nni() -> None:
    version()
    import nni  # noqa: F401

    # NNI's own log of every draw would drown ours.
    logging.getLogger("nni").setLevel(logging.ERROR)


def _tpe(mode: str, seed: int, options: dict[str, Any], trials: int) -> Any:
    from nni.algorithms.hpo import tpe_tuner

    class FreshTpe(tpe_tuner.TpeTuner):  # type: ignore[misc]
        """NNI's TPE, asked again for a repeated point; NNI would take the next one in grid order instead."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self._history: defaultdict[str, SortedHistory] = defaultdict(SortedHistory)

        def update_search_space(self, space: Any) -> None:
            super().update_search_space(space)
            self.dedup = lambda parameters: parameters

        def rescore(self, scores: dict[int, float]) -> None:
            """Forget the results and take these, by the trials' numbers."""
            self._history.clear()
            self.liar = tpe_tuner.create_liar(self.args.constant_liar_type)
            for number, score in scores.items():
                self._running_params[number] = self._params[number]
                self.receive_trial_result(number, None, score)

    tpe_tuner.split_history = _split
    # NNI's default of 20 random points to begin with would leave nothing of a small search to TPE; and the best of
    # 24 draws among a few categories is nearly always the same one, which is no new proposal.
    ours = {"n_startup_jobs": max(4, min(20, trials // 6)), "n_ei_candidates": 4}
    return FreshTpe(optimize_mode=mode, seed=seed, tpe_args={**ours, **options})


class SortedHistory(list[Any]):
    """NNI's records of one parameter, by loss; those of one loss in the order in which they came.

    NNI sorts all of them for every parameter of every draw, which takes 120 ms a draw behind 10,000 trials.
    """

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._split: tuple[Any, Any] | None = None

    def append(self, record: Any) -> None:
        """Add a record in its place."""
        place = bisect.bisect_right(self._losses, record.loss)
        self._losses.insert(place, record.loss)
        self.insert(place, record)
        self._split = None

    def split(self, best: int) -> tuple[Any, Any]:
        """Return the parameter's values in the best trials, and in the others."""
        if self._split is None:
            values = np.asarray([record.param for record in self])
            self._split = values[:best], values[best:]
        return self._split


def _split(args: Any, history: list[Any]) -> tuple[Any, Any]:
    """Do what NNI's split_history does, without sorting what is sorted."""
    best = min(math.ceil(args.gamma * math.sqrt(len(history))), args.linear_forgetting)
    if isinstance(history, SortedHistory):
        return history.split(best)
    # With the lies of constant_liar_type behind it.
    values = np.asarray([record.param for record in sorted(history, key=lambda record: record.loss)])
    return values[:best], values[best:]


def _random(seed: int) -> Any:
    from nni.algorithms.hpo.random_tuner import RandomTuner

    return RandomTuner(seed=seed)


def _grid() -> Any:
    from nni.algorithms.hpo.gridsearch_tuner import GridSearchTuner

    return GridSearchTuner()


def _evolution(mode: str, seed: int, options: dict[str, Any], trials: int) -> Any:
    from nni.algorithms.hpo.evolution_tuner import EvolutionTuner

    class SeededEvolution(EvolutionTuner):  # type: ignore[misc]
        """NNI's evolution, which takes no seed: it draws from numpy and from Python's global generator."""

        own = random.Random(seed).getstate()

        def update_search_space(self, search_space: Any) -> None:
            super().update_search_space(search_space)
            self.random_state = np.random.RandomState(seed)
            self.population: list[Any] = []
            for _ in range(self.population_size):
                self._random_generate_individual()

        def generate_parameters(self, parameter_id: int, **kwargs: Any) -> Any:
            others = random.getstate()
            random.setstate(self.own)
            try:
                return super().generate_parameters(parameter_id, **kwargs)
            finally:
                self.own = random.getstate()
                random.setstate(others)

        def receive_trial_result(self, parameter_id: int, parameters: Any, value: float, **kwargs: Any) -> None:
            super().receive_trial_result(parameter_id, parameters, value, **kwargs)
            self.population[-1].number = parameter_id

        def rescore(self, scores: dict[int, float]) -> None:
            """Give those of the population that have a result these in its place, by the trials' numbers."""
            for individual in self.population:
                if individual.result is not None:
                    individual.result = scores[individual.number]

    return SeededEvolution(optimize_mode=mode, **{"population_size": max(4, min(32, trials // 2)), **options})


def _gp(mode: str, seed: int, options: dict[str, Any], trials: int) -> Any:
    import numpy as np
    from nni.algorithms.hpo.gp_tuner import GPTuner

    class SeededGp(GPTuner):  # type: ignore[misc]
        """NNI's Gaussian process, which takes no seed."""

        def update_search_space(self, search_space: Any) -> None:
            self._random_state.seed(seed)
            # NNI fits the kernel from 25 random starts, which takes seconds a proposal and finds the same.
            self._gp.n_restarts_optimizer = 1
            super().update_search_space(search_space)

        def rescore(self, scores: dict[int, float]) -> None:
            """Take these scores of all trials, in the order in which they were told."""
            self._space._target = np.array(list(scores.values()))

    # Climbing from starting points breaks on current scipy; more random points, 1,000 of them, do without.
    ours = {
        "cold_start_num": max(3, min(10, trials // 3)),
        "selection_num_warm_up": 1000,
        "selection_num_starting_points": 0,
    }
    return SeededGp(optimize_mode=mode, **{**ours, **options})


def to_nni(name: str, holes: tuple[Hole, ...]) -> dict[str, Any]:
    """Return the search space in the words of one of NNI's tuners; parameter names are the holes' paths."""
    # Evolution mutates none but the outermost parameters, and a Gaussian process knows no others: all holes are.
    nest = name not in ("evolution", "gp")
    return {hole.name: _parameter(hole, nest) for hole in (holes if nest else flat(holes))}


def _parameter(hole: Hole, nest: bool) -> dict[str, Any]:
    if hole.kind == "choice":
        if nest and any(hole.inner):
            options = [
                {"_name": str(index), **{h.name: _parameter(h, nest=False) for h in flat(inner)}}
                for index, inner in enumerate(hole.inner)
            ]
            return {"_type": "choice", "_value": options}
        return {"_type": "choice", "_value": list(range(len(hole.options)))}
    if hole.kind == "int":
        # NNI's randint has no order; a uniform number, rounded down, keeps it.
        return {"_type": "uniform", "_value": [hole.low, hole.high + 1]}
    kind = {"uniform": "uniform", "log_uniform": "loguniform"}[hole.kind]
    return {"_type": kind, "_value": [hole.low, hole.high]}


def flat(holes: tuple[Hole, ...]) -> list[Hole]:
    """Return all holes, those inside choices behind the choice."""
    return [h for hole in holes for h in (hole, *(i for inner in hole.inner for i in flat(inner)))]


def from_nni(holes: tuple[Hole, ...], parameters: dict[str, Any]) -> Point:
    """Return the point that NNI's parameters stand for."""
    point: Point = {}
    for hole in holes:
        value = parameters[hole.name]
        if hole.kind == "choice":
            nested = value if isinstance(value, dict) else parameters
            index = int(value["_name"] if isinstance(value, dict) else value)
            point[hole.name] = index
            point.update(from_nni(hole.inner[index], nested))
        elif hole.kind == "int":
            point[hole.name] = int(min(hole.high, math.floor(value)))
        else:
            point[hole.name] = hole.clip(float(value))
    return point
