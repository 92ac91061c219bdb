"""Findings: all that the report of an ablation says, as numbers, worked out once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pandas as pd

from ..design import Design
from ..errors import StemlabError
from ..records import TrialRecord
from ..spec import AblationSpec
from .budgets import rank_between, rank_correlation, schedule_gap
from .cells import curves, guessing, results
from .claims import judge
from .contrasts import Inner
from .costs import costs
from .divergence import divergence
from .edf import compare_edfs, edf
from .effects import effects
from .measured import learning, scalar_probes, scalars, token_similarity
from .paired import compare
from .power import units_needed
from .ranking import latest
from .result import Result
from .sensitivity import sensitivity
from .units import unit_of

GRADIENTS = ("stem_grad_max", "body_grad_max")
"""Columns of a curve that the gradient probes add: the largest norm of an epoch's steps."""

T = TypeVar("T")


@dataclass(frozen=True)
class Findings:
    """What an ablation shows. What there is nothing to say about (no trial yet, nothing drawn, no claim) is None.

    `frame` has one row a trial, `curves` one an epoch of a trial; `unit` is what is paired, `draw` or `seed`.
    `budgets` holds `epochs` (rank correlation along the curves) and, where epochs are a factor, `schedules` (between
    its levels) and `gaps`; `gradients` how each of GRADIENTS runs. `missing` says why an analysis that was to be made
    is not there.
    """

    study: AblationSpec
    design: Design
    unit: str
    frame: Any
    curves: Any
    comparison: Result | None = None
    edfs: Result | None = None
    edf_comparison: Result | None = None
    effects: Result | None = None
    sensitivity: Result | None = None
    power: Result | None = None
    divergence: Result | None = None
    budgets: dict[str, Result] = field(default_factory=dict)
    claims: Result | None = None
    costs: Result | None = None
    learning: Result | None = None
    probes: Result | None = None
    tokens: Result | None = None
    gradients: dict[str, Result] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def level(self) -> float:
        """What a corrected p must stay below for arms to be told apart."""
        return 1 - self.study.ablate.confidence

    @property
    def differing(self) -> list[str]:
        """The arms by how far they are from the baseline, the furthest first; those that cannot be compared last."""
        if self.comparison is None:
            return []
        rows = self.comparison.frame
        return list(rows["arm"].loc[rows["difference"].abs().sort_values(ascending=False, kind="stable").index])


def gather(study: AblationSpec, design: Design, records: Iterable[TrialRecord]) -> Findings:
    """Return the findings of a study, finished or not.

    Records are of the study's own trials. What an analysis cannot tell (yet) is None, and `missing` says why.
    """
    trials = latest(records)
    frame, epochs = results(design, study.ablate.outcome, trials), curves(design, trials)
    if frame.empty:
        return Findings(study, design, "draw" if len(design.draws) > 1 else "seed", frame, epochs)
    found = _Gathering(study, design, trials, frame, epochs)
    return Findings(study, design, unit_of(frame), frame, epochs, **found.all(), missing=found.missing)


def judged(study: AblationSpec, design: Design, trials: Sequence[TrialRecord], frame: Any) -> Result:
    """Return what became of a study's claims; `frame` is that of `cells.results`."""
    return judge(
        study.claims,
        frame,
        design.levels,
        validation=study.ablate.metric,
        sign=study.ablate.sign,
        guessing=guessing(study.ablate.outcome, trials[0].data) if trials else {},
        inner=design.inner,
        confidence=study.ablate.confidence,
    )


class _Gathering:
    """The analyses of one study, each tried by itself: one that has too little to go on leaves the others alone."""

    def __init__(
        self, study: AblationSpec, design: Design, trials: Sequence[TrialRecord], frame: Any, epochs: Any
    ) -> None:
        self.study, self.design, self.trials = study, design, trials
        self.frame, self.epochs = frame, epochs
        self.missing: dict[str, str] = {}
        self.confidence, self.baseline = study.ablate.confidence, design.baseline.label
        self.metric = study.ablate.metric
        self.factors = design.levels
        self.guessing = guessing(study.ablate.outcome, trials[0].data)
        self.sure: dict[str, Any] = {"confidence": self.confidence}
        self.inner: Inner = design.inner

    def all(self) -> dict[str, Any]:
        """Return the fields of Findings."""
        frame, baseline, sure, inner = self.frame, self.baseline, self.sure, self.inner
        nuisances = {nuisance.name: nuisance.log for nuisance in self.design.nuisances}
        gradients = {name: learning(frame, self.epochs, name) for name in GRADIENTS if name in self.epochs}
        return {
            "comparison": self._try("comparison", lambda: compare(frame, baseline, **sure)),
            "edfs": self._try("edfs", lambda: edf(frame, **sure)),
            "edf_comparison": self._try(
                "edf_comparison", lambda: compare_edfs(frame, baseline, limit=self._worst, **sure)
            ),
            "effects": self._try("effects", lambda: effects(frame, self.factors, inner=inner, **sure)),
            "sensitivity": self._try("sensitivity", lambda: sensitivity(frame, nuisances, **sure))
            if nuisances
            else None,
            "power": self._try("power", lambda: units_needed(frame, baseline, alpha=1 - self.confidence)),
            "divergence": self._try("divergence", lambda: divergence(frame, baseline, **sure)),
            "budgets": self._budgets(),
            "claims": self._try("claims", lambda: judged(self.study, self.design, self.trials, frame))
            if self.study.claims
            else None,
            "costs": costs(frame),
            "learning": learning(frame, self.epochs, self.metric) if self.metric in self.epochs else None,
            "probes": scalars(frame, scalar_probes(self.trials), self.confidence),
            "tokens": token_similarity(self.design, self.trials),
            "gradients": {name: result for name, result in gradients.items() if len(result.frame)},
        }

    def _try(self, name: str, analysis: Callable[[], T]) -> T | None:
        try:
            return analysis()
        except StemlabError as error:
            self.missing[name] = str(error)
            return None

    @property
    def _worst(self) -> float:
        """The error of guessing, which a diverged run counts as."""
        return self.guessing["error"]

    def _budgets(self) -> dict[str, Result]:
        found: dict[str, Result | None] = {}
        sure = self.sure
        if self.metric in self.epochs:
            limit = self.guessing[self.metric]
            found["epochs"] = self._try(
                "budgets", lambda: rank_correlation(self._schedules(), self.metric, limit=limit, **sure)
            )
        budget = next((factor.name for factor in self.design.factors if factor.path.split(".")[-1] == "epochs"), None)
        if budget is not None:
            names = list(self.factors)
            found["schedules"] = self._try("schedules", lambda: rank_between(self.frame, names, budget, **sure))
            found["gaps"] = self._try("gaps", lambda: schedule_gap(self.frame, names, budget, **sure))
        return {name: result for name, result in found.items() if result is not None and len(result.frame)}

    def _schedules(self) -> Any:
        """Return the curves of all runs that did not fail, with how long each was to be.

        A run that diverged in its first epoch has no curve: it has one row, of epoch 0.
        """
        planned = {(record.proposal, record.seed): record.train.get("epochs") for record in self.trials}
        places = self.frame[["arm", "draw", "seed", "proposal", "status"]]
        places = places[places["status"] != "failed"]
        epochs = [planned[key] for key in zip(places["proposal"], places["seed"], strict=True)]
        keys = ["arm", "draw", "seed"]
        rows = places[keys].assign(epochs=epochs).merge(self.epochs[[*keys, "epoch", self.metric]], "left", keys)
        return pd.DataFrame(rows.fillna({"epoch": 0}).dropna(subset=["epochs"]))
