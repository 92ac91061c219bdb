"""Optuna's samplers as tuners, by ask-and-tell, in memory. Nothing else of stemlab imports optuna."""

from __future__ import annotations

import logging
import warnings
from importlib import import_module
from typing import Any

from ..errors import EngineError
from ..space import Hole, Point
from ..spec import SearchSettings
from .tuners import Values, flat

_NEST = ("optuna_tpe", "optuna_nsga2")
"""Samplers that know holes which are open in some trials only; for the others all holes are always open."""

_ATTEMPTS = {"optuna_gp": 10, "optuna_tpe": 50}
"""A Gaussian process takes a tenth of a second or more for each answer, TPE a few milliseconds."""


class OptunaTuner:
    """A sampler of Optuna over our holes. Several objectives are Optuna's own business."""

    def __init__(self, settings: SearchSettings, holes: tuple[Hole, ...]) -> None:
        require(settings.tuner)
        import optuna

        logging.getLogger("optuna").setLevel(logging.ERROR)  # it tells of every trial
        self.holes = holes
        self.nest = settings.tuner in _NEST
        self.attempts = _ATTEMPTS.get(settings.tuner, 200)
        directions: list[Any] = ["maximize" if objective.sign > 0 else "minimize" for objective in settings.objectives]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that an option is experimental or has a new default
            self.study = optuna.create_study(directions=directions, sampler=_sampler(settings))
        self.failed = optuna.trial.TrialState.FAIL
        self.withdrawn: list[Any] = []

    def ask(self) -> tuple[Any, Point] | None:
        """Return Optuna's trial and our point."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = self.study.ask()
            if not self.nest:
                for hole in flat(self.holes):
                    _suggest(trial, hole)
            return trial, _point(trial, self.holes)

    def tell(self, handle: Any, values: Values | None, worst: Values) -> None:
        """Give Optuna the values, or the worst ones so far, so that it learns to keep away from what does not train."""
        # Until now the points withdrawn were running trials to Optuna, so that it looked elsewhere.
        for trial in self.withdrawn:
            self.study.tell(trial, state=self.failed)
        self.withdrawn.clear()
        self.study.tell(handle, values or worst)

    def withdraw(self, handle: Any) -> None:
        """Tell Optuna, later, that the trial failed."""
        self.withdrawn.append(handle)


def require(name: str) -> None:
    """EngineError, with how to get it, unless what the tuner needs is installed."""
    needed = ("optuna", "cmaes") if name == "optuna_cmaes" else ("optuna",)
    for package in needed:
        try:
            import_module(package)
        except ImportError:
            raise EngineError(f"the tuner {name} needs {package}: pip install 'stemlab[optuna]'") from None


def _sampler(settings: SearchSettings) -> Any:
    from optuna import samplers

    seed, options, trials = settings.tuner_seed, settings.tuner_options, settings.trials
    startup = {"n_startup_trials": max(3, min(10, trials // 3))}
    if settings.tuner == "optuna_tpe":
        # A group is a set of holes that are open together: so it models the holes inside choices together, too.
        options = {**startup, "multivariate": True, "constant_liar": True, **options}
        return samplers.TPESampler(seed=seed, group=options["multivariate"], **options)
    if settings.tuner == "optuna_gp":
        return samplers.GPSampler(seed=seed, **{**startup, **options})
    if settings.tuner == "optuna_cmaes":
        return samplers.CmaEsSampler(seed=seed, **options)
    if settings.tuner == "optuna_nsga2":
        return samplers.NSGAIISampler(seed=seed, **{"population_size": max(4, min(50, trials // 4)), **options})
    return samplers.QMCSampler(seed=seed, **{"scramble": True, **options})


def _point(trial: Any, holes: tuple[Hole, ...]) -> Point:
    point: Point = {}
    for hole in holes:
        point[hole.name] = _suggest(trial, hole)
        if hole.kind == "choice":
            point.update(_point(trial, hole.inner[int(point[hole.name])]))
    return point


def _suggest(trial: Any, hole: Hole) -> int | float:
    """Return how a trial fills a hole; asked again, it answers the same."""
    if hole.kind == "choice":
        index: int = trial.suggest_categorical(hole.name, list(range(len(hole.options))))
        return index
    if hole.kind == "int":
        return int(trial.suggest_int(hole.name, int(hole.low), int(hole.high)))
    return hole.clip(float(trial.suggest_float(hole.name, hole.low, hole.high, log=hole.kind == "log_uniform")))
