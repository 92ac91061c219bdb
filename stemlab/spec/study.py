"""SearchSpec: a study file, and TrialSpec: one run of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, ValidationError, WithJsonSchema, model_validator

from ..errors import nearest, one_of, short
from .base import Count, Number, PositiveInt, Seed, Spec, relation_error, spec_error
from .bound import Bound
from .files import problems
from .model import ModelSpec
from .training import DataSpec, TrainSpec

Metric = Literal["top1", "top1_error", "loss"]
Quantity = Literal[
    "flops", "bias_adds", "params", "activations",
    "stem_flops", "stem_params", "stem_activations",
    "body_flops", "body_params", "body_activations",
    "stem_flops_share", "match_error",
]  # fmt: skip
"""What a constraint may bound: fields of stemlab.Cost, or the match's remaining error."""


class TrialSpec(Spec):
    """One run, completely: model, data, recipe and seed. Its digest is the identity of the trial."""

    model: ModelSpec
    data: DataSpec
    train: TrainSpec
    seed: Seed


class Objective(Spec):
    """What is sought: `{maximize: top1}` or `{minimize: loss}`, measured on the validation part."""

    maximize: Metric | None = None
    minimize: Metric | None = None

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


class NoOptions(Spec):
    """A tuner that takes none."""


TUNERS: dict[str, type[Spec]] = {
    "tpe": TpeOptions,
    "random": NoOptions,
    "grid": NoOptions,
    "evolution": EvolutionOptions,
}
"""The tuners that run, and what their options may be."""

REFUSED_TUNERS = {
    "anneal": "it needs hyperopt 0.1.2, which does not run on current Python",
    "bohb": "its dispatcher dies on the first metric (NNI issue 5263)",
    "gp": "it breaks on current scipy",
    "hyperband": "its dispatcher dies on the first metric (NNI issue 5263)",
    "metis": "it breaks on current scipy",
    "ppo": "it needs TensorFlow 1",
    "smac": "its packages do not build on current Python",
}
"""Tuners that NNI 3.0 lists and that do not run, with the reason."""


def _parse_tuner(value: Any) -> str:
    if isinstance(value, str) and value in REFUSED_TUNERS:
        raise spec_error(f"NNI 3.0's {value!r} does not run here: {REFUSED_TUNERS[value]}; expected {one_of(TUNERS)}")
    if not isinstance(value, str) or value not in TUNERS:
        raise spec_error(f"unknown tuner {short(value)}; expected {one_of(TUNERS)}{nearest(value, TUNERS)}")
    return value


Tuner = Annotated[str, PlainValidator(_parse_tuner), WithJsonSchema({"enum": list(TUNERS)})]


class SearchSettings(Spec):
    """How a space is searched.

    `trials` counts proposals; each is trained once per seed and judged by the mean. `concurrency` proposals run
    at a time: proposal n sees the results of those before n - 2 * (concurrency - 1), whatever the clock does.
    """

    tuner: Tuner = "tpe"
    trials: PositiveInt = 12
    concurrency: PositiveInt = 1
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    objective: Objective = Objective(maximize="top1")
    tuner_seed: Seed = 0
    tuner_options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _seeds_differ(self) -> SearchSettings:
        if len(set(self.seeds)) < len(self.seeds):
            raise spec_error(f"seeds must differ, got {list(self.seeds)}", at=("seeds",))
        return self

    @model_validator(mode="after")
    def _options_fit(self) -> SearchSettings:
        try:
            TUNERS[self.tuner].model_validate(self.tuner_options)
        except ValidationError as error:
            path, message, _ = next(problems(error, self.tuner_options))
            raise relation_error(message, at=("tuner_options", *path)) from None
        return self


class EngineSpec(Spec):
    """Where trials run. `embedded`: warm worker processes on this machine.

    `workers`: how many (0: in the calling process; absent: as many as the search's concurrency and the machine's
    cores or GPU slots allow). `threads`: CPU threads of each worker. `gpus_per_trial`: absent means one where
    there are GPUs, 0 means the CPU. `gpus`: the only ones to use, by index.
    """

    kind: Literal["embedded"] = "embedded"
    workers: Count | None = None
    threads: PositiveInt = 1
    gpus: Annotated[tuple[Count, ...], Field(min_length=1)] | None = None
    gpus_per_trial: Count | None = None
    trials_per_gpu: PositiveInt = 1

    @model_validator(mode="after")
    def _agrees(self) -> EngineSpec:
        if self.gpus is not None and len(set(self.gpus)) < len(self.gpus):
            raise spec_error(f"gpus must differ, got {list(self.gpus)}", at=("gpus",))
        if (self.gpus_per_trial or 0) > 1 and self.trials_per_gpu > 1:
            raise spec_error(
                "a trial on several GPUs cannot share them: trials_per_gpu must be 1", at=("trials_per_gpu",)
            )
        return self


class SearchSpec(Spec):
    """A search: a model, data and recipe with holes, and how to fill them.

    `model`, `data` and `train` are documents in which any value may be a hole: `{choice: [...]}`,
    `{int: [lo, hi]}`, `{uniform: [lo, hi]}` or `{log_uniform: [lo, hi]}`.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    model: dict[str, Any]
    data: dict[str, Any]
    train: dict[str, Any] = {}
    constraints: dict[Quantity, Bound] = {}
    search: SearchSettings = SearchSettings()
    engine: EngineSpec = EngineSpec()
