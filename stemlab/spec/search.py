"""SearchSettings: how a space is searched."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from ..errors import nearest, one_of, short
from .base import Number, PositiveInt, Seed, Spec, relation_error, spec_error
from .files import problems
from .latency import Latency
from .quantity import Quantity
from .seeds import Seeds
from .trial import Metric

Sought = Literal[Metric, Quantity, Latency]


class Objective(Spec):
    """What is sought: `{maximize: top1}` or `{minimize: loss}`, measured on the validation part.

    One of several objectives may also be a cost, or a measured latency (in milliseconds).
    """

    maximize: Sought | None = None
    minimize: Sought | None = None

    @model_validator(mode="after")
    def _one(self) -> Objective:
        if (self.maximize is None) == (self.minimize is None):
            raise spec_error("expected exactly one of maximize and minimize")
        return self

    @property
    def metric(self) -> str:
        """The metric's name."""
        return self.maximize or self.minimize or ""

    @property
    def sign(self) -> int:
        """1 where larger is better, -1 where smaller is."""
        return 1 if self.maximize else -1

    @property
    def is_learned(self) -> bool:
        """Whether it is a metric of the trained model, not a cost or a latency."""
        return self.metric in get_args(Metric)


_Several = Annotated[tuple[Objective, ...], Field(min_length=1, max_length=4)]
Objectives = Annotated[
    Annotated[Objective, Tag("one")] | Annotated[_Several, Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, list | tuple) else "one"),
]
"""One objective, or several: then the result is a Pareto front. The first one chooses where one must be chosen."""


class QuantileSpec(Spec):
    """`{quantile: 0.25}`: the value that a quarter of a proposal's trials do not surpass."""

    quantile: Annotated[Number, Field(gt=0, lt=1)]


Judge = Annotated[
    Annotated[Literal["mean", "median", "worst"], Tag("word")] | Annotated[QuantileSpec, Tag("quantile")],
    Discriminator(lambda value: "word" if isinstance(value, str) else "quantile"),
]
"""How a proposal is judged by its trials: by their mean unless said otherwise."""


class DrawsSpec(Spec):
    """Holes that are drawn, not searched: each proposal is trained on the same `count` draws, and judged over them all.

    `over` are the paths of holes in `train`, such as `train.lr`. So a search seeks a stem that trains well whatever
    these values are, rather than one that shines with the values found for it.
    """

    over: Annotated[tuple[str, ...], Field(min_length=1)]
    count: PositiveInt = 8
    seed: Seed = 0


class FidelitySpec(Spec):
    """How trials are stopped early, to spend the epochs on the promising ones.

    `median`: a trial stops behind `min_epochs` or more once its best value so far is worse than the median of the means
    that the trials of earlier proposals had by that epoch (the rule of Vizier, Golovin et al. 2017); `warmup` proposals
    are trained in full first. `halving` (arXiv 1502.07943): of a bracket of proposals trained for a few epochs, at
    least `min_epochs`, the best one in `eta` is trained on for `eta` times as long, and so on up to the whole recipe.
    `hyperband` (arXiv 1603.06560): brackets that begin with fewer proposals at more epochs in turn. A trial that goes
    on continues from its own state.
    """

    kind: Literal["median", "halving", "hyperband"]
    eta: Annotated[PositiveInt, Field(ge=2)] = 3
    min_epochs: PositiveInt = 1
    warmup: PositiveInt = 5


Screen = Literal["synflow", "naswot", "jacob_cov", "snip", "grad_norm"]
"""The scores of untrained models (docs/relations_and_screens.md)."""


class ScreenSpec(Spec):
    """A score that costs no training and orders candidates: of `pool` waiting ones, the best scored is tried first.

    None is dropped: those that wait when the search ends are listed in the study folder.
    """

    by: Screen
    pool: Annotated[PositiveInt, Field(ge=2)] = 8


class StopSpec(Spec):
    """When a search ends before its `trials` are done; what runs by then is finished.

    `patience`: behind so many proposals in turn without a better one (or a new one on the Pareto front). `max_hours`:
    of running, interruptions left out. `max_trials`: trainings, with every seed and draw counted.
    """

    patience: PositiveInt | None = None
    max_hours: Annotated[Number, Field(gt=0)] | None = None
    max_trials: PositiveInt | None = None


Probability = Annotated[Number, Field(ge=0, le=1)]


class TpeOptions(Spec):
    """NNI's options of its tree-structured Parzen estimator."""

    constant_liar_type: Literal["best", "worst", "mean"] | None = None
    n_startup_jobs: PositiveInt | None = None
    n_ei_candidates: PositiveInt | None = None
    linear_forgetting: PositiveInt | None = None
    prior_weight: Annotated[Number, Field(gt=0)] | None = None
    gamma: Annotated[Number, Field(gt=0)] | None = None


class EvolutionOptions(Spec):
    """NNI's options of its evolution."""

    population_size: PositiveInt | None = None


class GpOptions(Spec):
    """NNI's options of its Gaussian process: `xi` and `kappa` are what its utility takes, larger ones explore more."""

    utility: Literal["ei", "ucb", "poi"] | None = None
    kappa: Annotated[Number, Field(ge=0)] | None = None
    xi: Annotated[Number, Field(ge=0)] | None = None
    nu: Annotated[Number, Field(gt=0)] | None = None
    alpha: Annotated[Number, Field(gt=0)] | None = None
    cold_start_num: PositiveInt | None = None
    selection_num_warm_up: PositiveInt | None = None


class OptunaTpeOptions(Spec):
    """Optuna's options of its TPE. `multivariate` (the default) models the holes together, not each by itself."""

    n_startup_trials: PositiveInt | None = None
    n_ei_candidates: PositiveInt | None = None
    multivariate: bool | None = None


class OptunaGpOptions(Spec):
    """Optuna's options of its Gaussian process; `deterministic_objective`: results carry no noise."""

    n_startup_trials: PositiveInt | None = None
    deterministic_objective: bool | None = None


class OptunaCmaesOptions(Spec):
    """Optuna's options of CMA-ES; `with_margin` keeps whole numbers from being stuck."""

    n_startup_trials: PositiveInt | None = None
    sigma0: Annotated[Number, Field(gt=0)] | None = None
    popsize: Annotated[PositiveInt, Field(ge=2)] | None = None
    with_margin: bool | None = None


class OptunaNsga2Options(Spec):
    """Optuna's options of NSGA-II."""

    population_size: Annotated[PositiveInt, Field(ge=2)] | None = None
    mutation_prob: Probability | None = None
    crossover_prob: Probability | None = None
    swapping_prob: Probability | None = None


class OptunaQmcOptions(Spec):
    """Optuna's options of quasi-random points, which cover the numbers more evenly than random ones."""

    qmc_type: Literal["sobol", "halton"] | None = None
    scramble: bool | None = None


class NoOptions(Spec):
    """A tuner that takes none."""


NNI_TUNERS: dict[str, type[Spec]] = {
    "tpe": TpeOptions,
    "random": NoOptions,
    "grid": NoOptions,
    "evolution": EvolutionOptions,
    "gp": GpOptions,
}
"""NNI's tuners that run, and what their options may be."""

OPTUNA_TUNERS: dict[str, type[Spec]] = {
    "optuna_tpe": OptunaTpeOptions,
    "optuna_gp": OptunaGpOptions,
    "optuna_cmaes": OptunaCmaesOptions,
    "optuna_nsga2": OptunaNsga2Options,
    "optuna_qmc": OptunaQmcOptions,
}
"""Optuna's samplers, of the extra `optuna`, and what their options may be."""

TUNERS = {**NNI_TUNERS, **OPTUNA_TUNERS}
"""All tuners that run."""

ONE_OBJECTIVE = ("optuna_cmaes",)
"""Tuners that cannot seek several objectives."""

REFUSED_TUNERS = {
    "anneal": "it needs hyperopt 0.1.2, which does not run on current Python; evolution also changes what did well",
    "batch": "it tries a list of whole settings; make the list one choice hole and use grid",
    "bohb": "its dispatcher dies on the first metric (NNI issue 5263); use optuna_tpe and fidelity: {kind: hyperband}",
    "curvefitting": "it stops trials, it does not propose them; use fidelity: {kind: median}",
    "dngo": "it needs pybnn, which is no longer kept; use gp or optuna_gp",
    "hyperband": "its dispatcher dies on the first metric (NNI issue 5263); use fidelity: {kind: hyperband}",
    "medianstop": "it stops trials, it does not propose them; use fidelity: {kind: median}",
    "metis": "it takes no seed and knows no log_uniform holes; use gp or optuna_gp",
    "pbt": "it changes a trial's recipe while it trains, so that no spec says what was trained; use evolution",
    "ppo": "it needs TensorFlow 1; use evolution",
    "smac": "its packages do not build on current Python; use gp or optuna_gp",
}
"""Tuners, assessors and advisors that NNI 3.0 lists and that do not run here, with the reason and what to use."""


def _parse_tuner(value: Any) -> str:
    if isinstance(value, str) and value in REFUSED_TUNERS:
        raise spec_error(f"NNI 3.0's {value!r} does not run here: {REFUSED_TUNERS[value]}; expected {one_of(TUNERS)}")
    if not isinstance(value, str) or value not in TUNERS:
        raise spec_error(f"unknown tuner {short(value)}; expected {one_of(TUNERS)}{nearest(value, TUNERS)}")
    return value


Tuner = Annotated[str, PlainValidator(_parse_tuner), WithJsonSchema({"enum": list(TUNERS)})]


class SearchSettings(Spec):
    """How a space is searched.

    `trials` counts proposals; each is trained once per seed (and per draw) and judged by the mean, or as `judge` says:
    a trial that diverged or failed leaves it without a mean, but is merely the worst one to a median or a quantile.
    `concurrency` proposals run at a time: proposal n sees the results of those before n - 2 * (concurrency - 1),
    whatever the clock does.
    """

    tuner: Tuner = "tpe"
    trials: PositiveInt = 12
    concurrency: PositiveInt = 1
    seeds: Seeds = (0,)
    objective: Objectives = Objective(maximize="top1")
    tuner_seed: Seed = 0
    tuner_options: dict[str, Any] = {}
    draws: DrawsSpec | None = None
    judge: Judge | None = None
    fidelity: FidelitySpec | None = None
    screen: ScreenSpec | None = None
    stop: StopSpec | None = None

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """All that is sought."""
        return self.objective if isinstance(self.objective, tuple) else (self.objective,)

    @property
    def chief(self) -> Objective:
        """The first objective that is of the trained model: what proposals are ranked by."""
        return next(objective for objective in self.objectives if objective.is_learned)

    @property
    def trials_each(self) -> int:
        """How many trials a proposal has: one for each draw and seed."""
        return len(self.seeds) * (self.draws.count if self.draws else 1)

    @model_validator(mode="after")
    def _seeks_well(self) -> SearchSettings:
        if not any(objective.is_learned for objective in self.objectives):
            raise spec_error(f"one must be of the trained model: {one_of(get_args(Metric))}", at=("objective",))
        names = [objective.metric for objective in self.objectives]
        if len(set(names)) < len(names):
            raise spec_error(f"objectives must differ, got {', '.join(names)}", at=("objective",))
        if len(names) > 1 and self.tuner in ONE_OBJECTIVE:
            raise relation_error(f"{self.tuner} seeks one objective, not {len(names)}", at=("tuner",))
        return self

    @model_validator(mode="after")
    def _stops_fairly(self) -> SearchSettings:
        if self.fidelity is not None and len(self.objectives) > 1:
            raise spec_error("trials are stopped early by one objective; there are several", at=("fidelity",))
        if self.fidelity is not None and self.fidelity.kind == "median" and self.draws is not None:
            raise spec_error(
                "median stopping would stop the draws that are hard for every stem; use halving",
                at=("fidelity", "kind"),
            )
        return self

    @model_validator(mode="after")
    def _options_fit(self) -> SearchSettings:
        try:
            TUNERS[self.tuner].model_validate(self.tuner_options)
        except ValidationError as error:
            path, message, _ = next(problems(error, self.tuner_options))
            raise relation_error(message, at=("tuner_options", *path)) from None
        return self
