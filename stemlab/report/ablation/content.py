"""What the report of an ablation says, section by section, worked out once for the page and for the summary."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from ...analysis.findings import Findings
from ...analysis.findings import gather as find
from ...candidate import Candidate
from ...errors import InfeasibleError
from ...plan import Plan
from ...records import StudyFolder
from ...spec import AblationSpec
from ...spec.files import Document, validate
from .. import manifest as manifests
from ..data import data_section
from ..numbers import count
from ..sections import Section
from ..tables import Table
from . import columns
from .answer import answer
from .design_words import design_words
from .drawings import FEWEST_RANKED, Drawings, present
from .looks import looks
from .outcome import Outcome
from .stems import stem_pictures


@dataclass(frozen=True)
class Content:
    """All that a report says, as plain text, not yet escaped; figures are SVG.

    `question` is the study's, `answer` what came out, `notes` keep a reader from making more of it than there is.
    """

    name: str
    question: str
    answer: tuple[str, ...]
    notes: tuple[str, ...]
    sections: tuple[Section, ...]
    study: str
    manifest: list[tuple[str, str]]
    commands: list[tuple[str, str]]

    @property
    def tables(self) -> list[Table]:
        """All tables, in order."""
        return [table for section in self.sections for table in section.tables]


def gather(folder: StudyFolder, document: Document) -> Content:
    """Return what there is to say about an ablation, finished or not."""
    study = validate(AblationSpec, document)
    plan = Plan.of(study, document)
    found = find(study, plan.design, folder.records())
    arms = _candidates(plan)
    sections = _Sections(found, arms)
    manifest = manifests.read(folder)
    finished = len(found.frame) >= plan.total
    return Content(
        name=study.name,
        question=study.question or "",
        answer=tuple(answer(found)),
        notes=tuple(_notes(found, plan.total)),
        sections=tuple(each for each in (*sections.all(), data_section(folder)) if not each.empty),
        study=(folder.path / "study.yaml").read_text(encoding="utf-8"),
        manifest=manifests.lines(manifest),
        commands=_commands(folder, finished, bool((found.frame["status"] == "failed").any())),
    )


def _candidates(plan: Plan) -> dict[str, Candidate]:
    """Return the arms as on the first draw; none where one of them cannot be had (any more)."""
    try:
        return {arm.label: candidate for arm, candidate in zip(plan.design.arms, plan.arms, strict=True)}
    except InfeasibleError:
        return {}


def _notes(found: Findings, planned: int) -> Iterator[str]:
    frame = found.frame
    if len(frame) < planned:
        yield f"{len(frame)} of {count(planned, 'planned trial')} are in so far: what is said here may still change."
    failed = int((frame["status"] == "failed").sum())
    if failed:
        yield f"{count(failed, 'trial')} failed, which is no result: all numbers are without."
    if "reused_from" in frame and frame["reused_from"].notna().any():
        reused = frame["reused_from"].dropna()
        where = ", ".join(f"{number} from {folder}" for folder, number in reused.value_counts().items())
        yield (
            f"{count(len(reused), 'trial')} had been run before, under the same versions on the same machine, and "
            f"were copied: {where}."
        )


def _commands(folder: StudyFolder, finished: bool, failed: bool) -> list[tuple[str, str]]:
    path = str(folder.path)
    study, out, again = (shlex.quote(text) for text in (f"{path}/study.yaml", path, f"{path}-again"))
    commands = [] if finished else [("Go on with the study", f"stemlab ablate {study} --out {out} --resume")]
    if failed:
        commands.append(("Try what failed again, beside a copy of the rest", f"stemlab ablate {study} --out {again}"))
    if (folder.path / "best.json").exists():
        best = shlex.quote(f"{path}/best.json")
        commands.append(("Build the best model, by the validation part", f"stemlab build {best}"))
    return [
        *commands,
        ("Train two more seeds of every arm and draw", f"stemlab ablate {study} --out {out} --add-seeds 2"),
        ("Run the same study again, every trial of it", f"stemlab ablate {study} --out {again} --fresh"),
    ]


class _Sections:
    """The sections, in the order in which a careful reader asks for them."""

    def __init__(self, found: Findings, arms: dict[str, Candidate]) -> None:
        self.found, self.arms = found, arms
        self.design, self.baseline = found.design, found.design.baseline.label
        self.outcome, self.sure = Outcome(found.study.ablate.outcome), found.study.ablate.confidence
        self.draw = Drawings(found, looks([arm.label for arm in self.design.arms], found.differing))

    def all(self) -> Iterator[Section]:
        """Yield all sections; some are empty."""
        words = design_words(self.found.study, self.design, self.arms)
        yield Section("design", "The design", tuple(words))
        yield self._claims()
        yield self._distributions()
        yield from (self._effects(), self._comparison())
        yield Section("learning", "How the arms learned", pictures=present(self.draw.learning()))
        yield self._draws()
        yield from (self._costs(), self._divergence(), self._probes(), self._power(), self._budgets())
        yield Section("stems", "The stems", pictures=tuple(stem_pictures(self.arms)))

    def _claims(self) -> Section:
        result = self.found.claims
        return Section(
            "claims",
            "What the papers claim, what this run shows",
            self._missing("claims"),
            tables=() if result is None else (columns.claims_table(result, self.sure),),
        )

    def _distributions(self) -> Section:
        picture, result = self.draw.distributions(), self.found.edf_comparison
        if picture is None:  # one draw, or none that ended: no distribution
            return Section("distributions", "How errors spread over draws")
        known = result is not None and bool(result.frame["n"].sum())
        tables = (columns.distributions_table(result, self.outcome, self.sure),) if result is not None and known else ()
        return Section("distributions", "How errors spread over draws", (), (picture,), tables)

    def _effects(self) -> Section:
        result = self.found.effects
        # The effects of a single factor are the differences of its arms.
        if result is None or len(self.design.factors) < 2 or result.frame.empty:
            return Section("effects", "What each factor does", self._missing("effects"))
        table = columns.effects_table(result, self.outcome, self.sure)
        return Section("effects", "What each factor does", (), present(self.draw.effects()), (table,))

    def _comparison(self) -> Section:
        name, heading, result = "arms", "Arm by arm", self.found.comparison
        if result is None or result.frame.empty:
            return Section(name, heading, self._missing("comparison"))
        rows = self.found.frame[self.found.frame["arm"] == self.baseline]
        mean = float(rows.groupby(self.found.unit)["value"].mean().mean())
        table = columns.comparison_table(result, self.outcome, self.sure, self.baseline, mean)
        return Section(name, heading, (), present(self.draw.arms()), (table,))

    def _draws(self) -> Section:
        result = self.found.sensitivity
        known = result is not None and bool(result.frame["share"].notna().any())
        important: list[str] = []
        if result is not None and known:
            shares = result.frame.groupby("parameter")["share"].mean()
            important = [str(name) for name in shares.sort_values(ascending=False).index]
        return Section(
            "draws",
            "What the draws did",
            pictures=present(self.draw.draws(important)),
            tables=(columns.sensitivity_table(result),) if result is not None and known else (),
        )

    def _costs(self) -> Section:
        result = self.found.costs
        tables = () if result is None else (columns.costs_table(result, self.baseline),)
        return Section("costs", "What each arm costs", tables=tables)

    def _divergence(self) -> Section:
        result, frame = self.found.divergence, self.found.frame
        name, heading = "divergence", "What diverged or failed"
        if frame.empty:
            return Section(name, heading)
        broken = frame[frame["status"].isin(["diverged", "failed"])]
        if broken.empty:
            return Section(name, heading, ("No trial diverged, and none failed.",))
        tables = [] if result is None else [columns.divergence_table(result, self.sure, self.baseline)]
        return Section(name, heading, tables=(*tables, columns.broken_table(broken)))

    def _probes(self) -> Section:
        result = self.found.probes
        return Section(
            "probes",
            "What was measured beside it",
            pictures=present(self.draw.tokens(), self.draw.gradients()),
            tables=() if result is None else (columns.probes_table(result),),
        )

    def _power(self) -> Section:
        name, heading, result = "power", f"How many more {self.found.unit}s it would take", self.found.power
        if result is None or result.frame.empty:
            return Section(name, heading)
        return Section(name, heading, tables=(columns.power_table(result, self.outcome, self.found.unit),))

    def _budgets(self) -> Section:
        found, tables = self.found.budgets, []
        if "epochs" in found and self.found.frame["arm"].nunique() >= FEWEST_RANKED:
            tables.append(columns.budgets_table(found["epochs"], "Ranks along the learning curves"))
        if "schedules" in found:
            tables.append(columns.schedules_table(found["schedules"]))
        if "gaps" in found:
            tables.append(columns.gaps_table(found["gaps"], self.outcome, self.sure))
        return Section(
            "budgets", "Would a smaller budget have said the same?", (), present(self.draw.ranks()), tuple(tables)
        )

    def _missing(self, analysis: str) -> tuple[str, ...]:
        reason = self.found.missing.get(analysis)
        return () if reason is None else (f"Not there: {reason}.",)
