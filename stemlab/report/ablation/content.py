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
from ..numbers import count
from ..tables import Table
from . import columns
from .design_words import design_words
from .drawings import Drawings, present
from .looks import looks
from .outcome import Outcome
from .sections import Section
from .stems import stem_pictures

_MESSAGES = 12


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
        answer=tuple(sections.answer()),
        notes=tuple(_notes(found, plan.total)),
        sections=tuple(section for section in sections.all() if not section.empty),
        study=(folder.path / "study.yaml").read_text(encoding="utf-8"),
        manifest=manifests.lines(manifest),
        commands=_commands(folder, finished),
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
        yield f"{count(failed, 'trial')} failed and are missing from all numbers; --resume tries no trial twice."
    if "reused_from" in frame and frame["reused_from"].notna().any():
        reused = frame["reused_from"].dropna()
        where = ", ".join(f"{number} from {folder}" for folder, number in reused.value_counts().items())
        yield (
            f"{count(len(reused), 'trial')} were not trained again but taken from other studies of the same trial on the "
            f"same versions and machine: {where}."
        )


def _commands(folder: StudyFolder, finished: bool) -> list[tuple[str, str]]:
    path = str(folder.path)
    study, out, again = (shlex.quote(text) for text in (f"{path}/study.yaml", path, f"{path}-again"))
    commands = [] if finished else [("Go on with the study", f"stemlab ablate {study} --out {out} --resume")]
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
        self.outcome = Outcome(found.study.ablate.outcome)
        self.looks = looks([arm.label for arm in self.design.arms], self._differing())
        self.draw = Drawings(found, self.looks)

    def answer(self) -> Iterator[str]:
        """Yield one or two sentences that answer the question."""
        if self.found.frame.empty:
            yield "No trial has finished yet."

    def all(self) -> Iterator[Section]:
        """Yield all sections; some are empty."""
        yield self._design()
        yield Section("learning", "How the arms learned", pictures=present(self.draw.learning()))
        yield Section("draws", "What the draws did", pictures=present(self.draw.draws()))
        yield self._costs()
        yield self._probes()
        yield Section("stems", "The stems", pictures=tuple(stem_pictures(self.arms)))

    def _differing(self) -> list[str]:
        return []

    def _design(self) -> Section:
        example = self.arms.get(self.baseline)
        return Section("design", "The design", tuple(design_words(self.found.study, self.design, example)))

    def _costs(self) -> Section:
        result = self.found.costs
        tables = () if result is None else (columns.costs_table(result, self.baseline),)
        return Section("costs", "What each arm costs", tables=tables)

    def _probes(self) -> Section:
        result = self.found.probes
        return Section(
            "probes",
            "What was measured beside it",
            pictures=present(self.draw.tokens(), self.draw.gradients()),
            tables=() if result is None else (columns.probes_table(result),),
        )
