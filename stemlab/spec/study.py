"""SearchSpec and AblationSpec: a study file; TrialSpec: one run of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, ValidationError, WithJsonSchema, model_validator

from ..errors import nearest, one_of, short
from .base import Count, Number, PositiveInt, Seed, Spec, relation_error, spec_error
from .bound import Bound
from .claims import ClaimSpec
from .files import problems
from .model import ModelSpec
from .probes import Probes
from .training import DataSpec, TrainSpec

Metric = Literal["top1", "top1_error", "loss"]
Outcome = Literal["test_top1", "test_loss", "top1", "loss"]
Quantity = Literal[
    "flops", "bias_adds", "params", "activations",
    "stem_flops", "stem_params", "stem_activations",
    "body_flops", "body_params", "body_activations",
    "stem_flops_share", "match_error",
]  # fmt: skip
"""What a constraint may bound: fields of stemlab.Cost, or the match's remaining error."""


def _differ(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise spec_error(f"seeds must differ, got {list(seeds)}")
    return seeds


Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_differ)]


class TrialSpec(Spec):
    """One run, completely: model, data, recipe, seed and probes. Its digest is the identity of the trial."""

    model: ModelSpec
    data: DataSpec
    train: TrainSpec
    seed: Seed
    probes: Probes = None


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
    seeds: Seeds = (0,)
    objective: Objective = Objective(maximize="top1")
    tuner_seed: Seed = 0
    tuner_options: dict[str, Any] = {}

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


class AblationSettings(Spec):
    """Which trials an ablation runs: the arms of a design, each on the same draws and the same seeds.

    `choice` holes are factors, whose levels make the arms; the other holes are drawn `draws` times, the same for every
    arm. `full` crosses all factors; `one_at_a_time` changes one from the `baseline`; `fractional` takes a regular
    fraction of the full design, of the stated `resolution` (Box & Hunter 1961): with 3 main effects are free of one
    another, with 4 of interactions too, with 5 interactions are free of one another. `names` calls a hole, given by
    its path, something better than its last word. `baseline` names a level of each factor: the first unless given.
    `outcome` is what is compared; the test part by default, since nothing is chosen by it. `confidence` is that of all
    intervals.
    """

    design: Literal["full", "one_at_a_time", "fractional"] = "full"
    resolution: Literal[3, 4, 5] | None = None
    draws: PositiveInt = 1
    draw_seed: Seed = 0
    seeds: Seeds = (0, 1, 2)
    names: dict[str, Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,39}$")]] = {}
    baseline: dict[str, Any] = {}
    outcome: Outcome = "test_top1"
    confidence: Annotated[Number, Field(gt=0, lt=1)] = 0.95

    @model_validator(mode="after")
    def _agrees(self) -> AblationSettings:
        if self.design == "fractional" and self.resolution is None:
            raise spec_error("a fractional design needs its resolution: 3, 4 or 5", at=("design",))
        if self.design != "fractional" and self.resolution is not None:
            raise spec_error(f"only a fractional design has a resolution, not {self.design}", at=("resolution",))
        return self


class StudySpec(Spec):
    """What a search and an ablation share: a model, data and recipe with holes, and where trials run.

    `model`, `data` and `train` are documents in which any value may be a hole: `{choice: [...]}`,
    `{int: [lo, hi]}`, `{uniform: [lo, hi]}` or `{log_uniform: [lo, hi]}`. The options of a choice may have names:
    `{choice: {name: option, ...}}`. `probes` says what to measure of each model, beside how well it does.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    model: dict[str, Any]
    data: dict[str, Any]
    train: dict[str, Any] = {}
    constraints: dict[Quantity, Bound] = {}
    probes: Probes = None
    engine: EngineSpec = EngineSpec()


class SearchSpec(StudySpec):
    """A search: a tuner fills the holes."""

    search: SearchSettings = SearchSettings()


class AblationSpec(StudySpec):
    """An ablation: a design fills the choices, shared draws the other holes.

    `question` is what the study is to answer, in a sentence or two for its report; `claims` are rules, written before
    the run, by which what was claimed is judged.
    """

    question: str | None = None
    ablate: AblationSettings = AblationSettings()
    claims: tuple[ClaimSpec, ...] = ()
