"""SearchSpec and AblationSpec: a study file."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from .base import Number, PositiveInt, Seed, Spec, spec_error
from .bound import Bound
from .claims import ClaimSpec
from .engine import EngineSpec
from .latency import Latency, LatencySpec
from .probes import Probes
from .quantity import Quantity
from .relation import Relations
from .search import SearchSettings
from .seeds import Seeds

Outcome = Literal["test_top1", "test_loss", "top1", "loss"]


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

    @property
    def metric(self) -> str:
        """The outcome as the validation part has it: what may choose."""
        return self.outcome.removeprefix("test_")

    @property
    def sign(self) -> int:
        """1 where a larger outcome is better, -1 where a smaller is."""
        return -1 if self.metric == "loss" else 1

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
    `{choice: {name: option, ...}}`. `constraints` bound quantities of the matched model, `latency` measured times;
    `relations` are comparisons between fields and costs that have to hold (docs/relations_and_screens.md).
    `probes` says what to measure of each model, beside how well it does.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    model: dict[str, Any]
    data: dict[str, Any]
    train: dict[str, Any] = {}
    constraints: dict[Quantity, Bound] = {}
    relations: Relations | None = None
    latency: LatencySpec | None = None
    probes: Probes = None
    engine: EngineSpec = EngineSpec()

    @property
    def latencies(self) -> LatencySpec | None:
        """What is measured before each trial."""
        return self.latency


class SearchSpec(StudySpec):
    """A search: a tuner fills the holes."""

    search: SearchSettings = SearchSettings()

    @property
    def latencies(self) -> LatencySpec | None:
        """What is measured before each trial: as the study says, or because an objective is one of the latencies."""
        sought = {objective.metric for objective in self.search.objectives}
        return self.latency or (LatencySpec() if sought & set(get_args(Latency)) else None)


class AblationSpec(StudySpec):
    """An ablation: a design fills the choices, shared draws the other holes.

    `question` is what the study is to answer, in a sentence or two for its report; `claims` are rules, written before
    the run, by which what was claimed is judged.
    """

    question: str | None = None
    ablate: AblationSettings = AblationSettings()
    claims: tuple[ClaimSpec, ...] = ()
