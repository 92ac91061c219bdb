"""Study: what a search or an ablation has on record, for reading."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .api import load
from .errors import SpecError, StudyError, nearest, one_of, short
from .records import StudyFolder, TrialRecord
from .spec import AblationSpec, ModelSpec, SearchSpec
from .spec.files import Document, read, validate

if TYPE_CHECKING:
    import pandas as pd

    from .analysis.result import Result
    from .design import Design


class Study:
    """A study folder: `records` (a DataFrame), `best` (a ModelSpec), `report()`; of an ablation, comparisons too."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Open the folder of a study that was started; StudyError where there is none."""
        self.folder = StudyFolder(folder)
        if not (self.folder.path / "study.yaml").exists():
            raise StudyError(f"{self.folder.path}: no study.yaml: this is not the folder of a study")

    @cached_property
    def spec(self) -> SearchSpec | AblationSpec:
        """The study file, resolved."""
        is_ablation = isinstance(self._document.data, dict) and "ablate" in self._document.data
        return validate(AblationSpec, self._document) if is_ablation else validate(SearchSpec, self._document)

    @cached_property
    def _document(self) -> Document:
        return read(self.folder.path / "study.yaml")

    @property
    def objective(self) -> tuple[str, int]:
        """What is sought or compared, and 1 where larger is better, -1 where smaller is."""
        if isinstance(self.spec, SearchSpec):
            chief = self.spec.search.chief
            return chief.metric, chief.sign
        return self.spec.ablate.outcome, self.spec.ablate.sign

    @property
    def trials(self) -> list[TrialRecord]:
        """The records of all finished trials, in the order they ended."""
        return self.folder.records()

    @property
    def records(self) -> pd.DataFrame:
        """One row a trial: how the holes were filled, metrics, cost; of an ablation, arm, factors, draw and outcome."""
        from .analysis import cells, ranking

        if isinstance(self.spec, SearchSpec):
            return ranking.to_frame(self.trials)
        return cells.results(self.design, self.spec.ablate.outcome, self.trials)

    @property
    def ablation(self) -> AblationSpec:
        """The study file of an ablation, resolved; StudyError for a search."""
        if isinstance(self.spec, SearchSpec):
            raise StudyError(f"{self.folder.path}: this is a search, which has no arms to compare; see stemlab ablate")
        return self.spec

    @cached_property
    def design(self) -> Design:
        """The arms and draws of an ablation; StudyError for a search."""
        from .plan import Plan

        return Plan.of(self.ablation, self._document).design

    @property
    def best(self) -> ModelSpec | None:
        """The model of the best proposal or arm by the validation part; None while none has finished well."""
        path = self.folder.path / "best.json"
        return load(path) if path.exists() else None

    @property
    def front(self) -> pd.DataFrame:
        """The proposals of a search on its Pareto front: proposal, label and objectives; StudyError for an ablation.

        With one objective that is the best proposal, and its equals.
        """
        from .analysis import sought

        settings = self._searched.search
        frame = sought.values(self.trials, settings)
        names = [objective.metric for objective in settings.objectives]
        found = frame.loc[sought.front(frame, settings.objectives), ["proposal", "label", *names]]
        first = settings.chief
        return found.sort_values(first.metric, ascending=first.sign < 0, kind="stable", ignore_index=True)

    def importance(self) -> Result:
        """Return how much each hole of a search matters to what is sought; StudyError for an ablation.

        See `stemlab.importance`: the frame is empty where nothing can be said.
        """
        from .analysis import sought
        from .importance import importance

        study = self._searched
        metric = study.search.chief.metric
        frame = sought.values(self.trials, study.search).dropna(subset=metric)
        filled = sought.filled(self.trials)
        return importance(sought.holes(study), [filled[p] for p in frame["proposal"]], list(frame[metric]))

    @property
    def _searched(self) -> SearchSpec:
        if isinstance(self.spec, AblationSpec):
            raise StudyError(f"{self.folder.path}: this is an ablation, which seeks nothing; see its effects")
        return self.spec

    def find_front(self) -> list[dict[str, Any]]:
        """Return the Pareto front of a search with several objectives: proposal, objectives and model of each."""
        if isinstance(self.spec, AblationSpec) or len(self.spec.search.objectives) == 1:
            return []
        models = {record.proposal: record.model for record in self.trials}
        names = [objective.metric for objective in self.spec.search.objectives]
        return [
            {"proposal": row["proposal"], **{name: row[name] for name in names}, "model": models[row["proposal"]]}
            for row in self.front.to_dict("records")
        ]

    def find_best(self) -> dict[str, Any] | None:
        """Return the model of the best proposal, or of the best arm on its best draw, by the validation part."""
        from .analysis import ranking

        records = self.trials
        metric, sign = self.objective
        if isinstance(self.spec, AblationSpec):
            metric = self.spec.ablate.metric  # the test part never chooses
            from .analysis.cells import results

            frame = results(self.design, metric, records)
            means = (sign * frame["value"]).groupby(frame["arm"], sort=False).mean().dropna()
            if means.empty or not (frame["status"] == "ok").any():
                return None
            inside = frame["arm"] == means.idxmax()
            records = [record for record in records if record.proposal in set(frame["proposal"][inside])]
        judge = self.spec.search.judge if isinstance(self.spec, SearchSpec) else None
        chosen = ranking.best(records, metric, sign, judge)
        return None if chosen is None else next(r.model for r in records if r.proposal == chosen)

    def compare(self, what: str = "arm", value: str = "value") -> Result:
        """Return how far the arms, or the levels of a factor, are from the baseline: paired differences, intervals.

        Levels are compared in the same settings of the other factors (`stemlab.analysis.effects`), arms with the
        baseline arm (`stemlab.analysis.paired`). `value` is any numeric column of `records`: the study's outcome unless
        given. StudyError for a search.
        """
        from .analysis.paired import compare

        if what == "arm":
            baseline = self.design.baseline.label
            found = compare(self.records, baseline, value, confidence=self._confidence)
            measured = self.objective[0] if value == "value" else value
            return replace(found, title=f"{measured} of each arm against that of “{baseline}”")
        return self._effects(value, of=what)

    def edf(self, by: str = "arm", value: str = "error") -> Result:
        """Return the error distribution function of each arm, or level of a factor, with its band."""
        from .analysis.edf import edf

        self._check(by)
        return edf(self.records, value, by, self._confidence)

    def effects(self, value: str = "value") -> Result:
        """Return the main effects of the factors and their interactions, with intervals."""
        return self._effects(value)

    def _effects(self, value: str, of: str | None = None) -> Result:
        from .analysis.effects import effects

        return effects(
            self.records, self.design.levels, value, of=of, inner=self.design.inner, confidence=self._confidence
        )

    def sensitivity(self, by: str = "arm", value: str = "value") -> Result:
        """Return which share of the variance of an arm's results each nuisance has."""
        from .analysis.sensitivity import sensitivity

        self._check(by)
        nuisances = {nuisance.name: nuisance.log for nuisance in self.design.nuisances}
        return sensitivity(self.records, nuisances, value, by, self._confidence)

    def divergence(self) -> Result:
        """Return how many runs of each arm diverged, with intervals, and against the baseline."""
        from .analysis.divergence import divergence

        return divergence(self.records, self.design.baseline.label, confidence=self._confidence)

    def units_needed(self, power: float = 0.8) -> Result:
        """Return how many draws (or seeds, with one draw) an effect of the size seen would take."""
        from .analysis.power import units_needed

        return units_needed(self.records, self.design.baseline.label, power=power, alpha=1 - self._confidence)

    def claims(self) -> Result:
        """Return the claims of the study file, each with what was seen and a verdict."""
        from .analysis.findings import judged

        return judged(self.ablation, self.design, self.trials, self.records)

    @property
    def _confidence(self) -> float:
        return self.ablation.ablate.confidence

    def _check(self, by: str) -> None:
        if by not in ("arm", *self.design.levels):
            names = ("arm", *self.design.levels)
            raise SpecError(f"unknown factor {short(by)}; expected {one_of(names)}{nearest(by, names)}")

    def report(self) -> Path:
        """Write report.html and summary.md anew; return the path of the report."""
        from .report import write

        return write(self.folder)[0]
