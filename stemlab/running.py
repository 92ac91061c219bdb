"""search() and ablate(): studies from their files to their folders."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from .candidate import Candidates
from .errors import SpecError, StemlabError, StudyError
from .records import StudyFolder, TrialRecord, folder_for
from .space import is_hole
from .spec import AblationSpec, DataSpec, SearchSpec, StudySpec, TrainSpec, TrialSpec
from .spec.files import Document, override, read, validate
from .spec.presets import expanded
from .study import Study

if TYPE_CHECKING:
    from .data.contents import Preparing
    from .engine.loop import Reporter, Source
    from .engine.runner import Runner
    from .engine.screening import Screened
    from .plan import Plan

StudySource = str | os.PathLike[str] | dict[str, Any]


def load_search(
    source: StudySource, changes: Sequence[str] = (), preparing: Preparing | None = None
) -> Candidates[SearchSpec]:
    """Return the space of a search file (or dict), checked; `changes` are `path=value` as after --set.

    A data set on disk is looked at, which may take long the first time; `preparing` is told how far that has come.
    """
    document = _read(SearchSpec, source, changes, preparing)
    study = validate(SearchSpec, document)
    if study.search.fidelity is not None and is_hole(_epochs(study)):
        raise document.error(("train", "epochs"), "a search that stops trials early needs one number of epochs for all")
    return Candidates(study, study.search.seeds, document, study.search.draws)


def _epochs(study: SearchSpec) -> Any:
    """Return the epochs of the recipe, which may be a hole."""
    return expanded(study.train).get("epochs", TrainSpec.model_fields["epochs"].default)


def load_ablation(source: StudySource, changes: Sequence[str] = (), preparing: Preparing | None = None) -> Plan:
    """Return the plan of an ablation file (or dict), checked; `changes` and `preparing` are as in `load_search`."""
    from .plan import Plan

    document = _read(AblationSpec, source, changes, preparing)
    return Plan.of(validate(AblationSpec, document), document)


def _read(kind: type[StudySpec], source: StudySource, changes: Sequence[str], preparing: Preparing | None) -> Document:
    """Read a study file, and look up what its data set holds.

    It may hold a search and an ablation: what only the other needs is checked and left out.
    """
    document = Document(source, "<dict>") if isinstance(source, dict) else read(source)
    for change in changes:
        document = override(document, change)
    if not isinstance(document.data, dict):
        return document
    other = SearchSpec if kind is AblationSpec else AblationSpec
    own, theirs = ({*a.model_fields} - {*b.model_fields} for a, b in ((kind, other), (other, kind)))
    if theirs & document.data.keys():
        validate(other, _without(document, own))
        document = _without(document, theirs)
    from .data import contents

    return contents.with_contents(document, preparing)


def _without(document: Document, names: set[str]) -> Document:
    kept = {name: value for name, value in document.data.items() if name not in names}
    return Document(kept, document.source, document.places)


def search(
    source: StudySource,
    out: str | os.PathLike[str] | None = None,
    *,
    changes: Sequence[str] = (),
    resume: bool = False,
    reporter: Reporter | None = None,
) -> Study:
    """Search the space of a study file; return the finished study.

    `out` is the study folder: unless given, `runs/<name>`, or the next free of `runs/<name>-2` and so on, so that an
    earlier study is never touched; with `resume`, the last of those.

    An interrupt (KeyboardInterrupt) stops the trials at once, keeps all that is finished, writes the report and is
    raised again; `resume=True` then goes on, repeats nothing, and ends with the records of an unbroken study.
    """
    from .engine import packs, tuners
    from .engine.halving import Brackets
    from .engine.proposer import TunerProposer
    from .engine.screening import Screened
    from .engine.searching import Progress, Proposals

    candidates = load_search(source, changes, None if reporter is None else reporter.preparing)
    study = candidates.study
    candidates.require_feasible()
    tuners.require(study.search.tuner)
    settings = study.search
    with _Run(study, folder_for(study.name, out, resume), resume, reporter) as run:
        runner = run.start(settings.concurrency * settings.trials_each)
        proposer = TunerProposer(candidates)
        if settings.screen is None:
            progress = Progress(settings, proposer, run.reporter.note, run.hours)
        else:
            known = {record.trial: record.screen for record in run.records if record.screen is not None}
            run.screened = screened = Screened(proposer, settings.screen, known=known)
            progress = Progress(settings, screened, run.reporter.note, run.hours, screened.score_of)
        halves = settings.fidelity if settings.fidelity and settings.fidelity.kind != "median" else None
        trials = Brackets(progress, halves, _epochs(study)) if halves else Proposals(progress)
        try:
            done = run.loop(trials, runner, pack=packs.of_search(study, runner.slots))
        finally:
            run.manifest["stopped"] = progress.stopped
        run.folder.forget_states()  # of trials that were stopped early for good
        return done


def ablate(
    source: StudySource,
    out: str | os.PathLike[str] | None = None,
    *,
    changes: Sequence[str] = (),
    resume: bool = False,
    add_seeds: int = 0,
    reuse: bool = True,
    reporter: Reporter | None = None,
) -> Study:
    """Train every arm of an ablation file on the same draws and seeds; return the finished study.

    `out`, `resume` and interrupts are as in `search`. `add_seeds` takes up a finished or interrupted study and trains
    that many more seeds. With `reuse`, a trial that a study in a folder beside this one has on record, run under the
    same versions on the same machine, is copied from there and not trained again.
    """
    from .engine.ablating import Cells
    from .engine.reuse import records_beside

    if type(add_seeds) is not int or add_seeds < 0:
        raise SpecError(f"add_seeds (--add-seeds) must be a whole number, 0 or more, got {add_seeds!r}")
    plan = load_ablation(source, changes, None if reporter is None else reporter.preparing)
    taken_up = resume or add_seeds > 0
    folder = folder_for(plan.study.name, out, taken_up)
    if add_seeds and not (folder / "study.yaml").exists():
        raise StudyError(f"{folder}: there is no study to add seeds to; run it first, or name its folder (--out)")
    before = _with_seeds(plan.study, _seeds_in(folder, plan.study)) if taken_up else plan.study
    study = before
    if add_seeds:
        seeds = before.ablate.seeds
        study = _with_seeds(before, (*seeds, *range(max(seeds) + 1, max(seeds) + 1 + add_seeds)))
    if study != plan.study:
        plan = load_ablation(study.canonical())
    cells = plan.cells  # before a folder is made: an arm that cannot be had is bad input
    with _Run(study, folder, taken_up, reporter, before) as run:
        runner = run.start(plan.total)
        elsewhere = records_beside(folder, run.manifest) if reuse else {}
        waiting = [trial for cell in cells for trial in cell.trials if trial.digest not in elsewhere]
        pack = run.pack(waiting, runner)
        return run.loop(Cells(cells, len(plan.design.arms), study.ablate.seeds, pack), runner, elsewhere, pack)


def time_needed(plan: Plan) -> tuple[list[float], int]:
    """Return the seconds that a trial of each arm takes, by a few measured steps, and how many run at a time."""
    from .engine import slots
    from .engine.estimate import estimate

    places = slots.plan(plan.study.engine, plan.total)
    return estimate([candidate.trials[0] for candidate in plan.arms], places), len(places)


def _seeds_in(folder: Path, study: AblationSpec) -> tuple[int, ...]:
    """Return the seeds of the study in a folder, which may be more than its file says; the file's if it is another."""
    written = folder / "study.yaml"
    document = read(written) if written.exists() else Document({}, str(written))
    if not isinstance(document.data, dict) or "ablate" not in document.data:
        return study.ablate.seeds
    seeds = validate(AblationSpec, document).ablate.seeds
    return seeds if seeds[: len(study.ablate.seeds)] == study.ablate.seeds else study.ablate.seeds


def _with_seeds(study: AblationSpec, seeds: tuple[int, ...]) -> AblationSpec:
    return study.replace(ablate=study.ablate.replace(seeds=seeds))


class _Run:
    """A study that runs: its folder locked; the manifest written at its start and, with best.json and the report, at
    its end, however it ends."""

    def __init__(
        self, study: StudySpec, folder: Path, taken_up: bool, reporter: Reporter | None, before: StudySpec | None = None
    ) -> None:
        from .engine import manifest, runners
        from .engine.quiet import Quiet
        from .engine.status_file import StatusFile

        self.study, self.taken_up = study, taken_up
        self.reporter = StatusFile(reporter or Quiet())
        self.before = before or study
        self.folder = StudyFolder(folder)
        # What this machine has not got is said before a folder is made.
        trials_on = runners.check(study.engine)
        self.runner: Runner | None = None
        self.screened: Screened | None = None
        self.manifest: dict[str, Any] = {
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "started": _now(),
            "finished": None,
            "seconds": None,
            "stopped": None,
            "resumed": taken_up,
            "commit": manifest.commit(),
            "versions": manifest.versions(),
            "hardware": manifest.hardware(),
            "trials_on": trials_on,
        }
        self.records: list[TrialRecord] = []
        self.seconds_before = 0.0
        self.began = time.perf_counter()

    def __enter__(self) -> _Run:
        self.folder.open_to_write(self.before.canonical(), self.taken_up, self.study.canonical())
        try:
            if self.folder.recovered:
                self.reporter.note(self.folder.recovered)
            self.records = self.folder.records()  # where they are damaged, nothing is to be written
            self.seconds_before = self._seconds_before()
            self.folder.write_json("manifest.json", self.manifest)
            self._tell_of_data()
        except BaseException:
            self.folder.close()
            raise
        return self

    def _tell_of_data(self) -> None:
        """Say which images of a folder are skipped, and list them in data.json."""
        from .data import contents

        contents.tell(self.study.data, self.folder, self.reporter.note)

    def start(self, trials: int) -> Runner:
        """Start the engine, for as many trials at a time as there may be."""
        from . import report
        from .engine import runners

        keep = self.folder.path / "trials"
        self.runner = runners.start(self.study.engine, trials, keep, self.reporter.note)
        self.reporter.page = getattr(self.runner, "page", None)
        # While the workers import torch: what they need next, and what is needed when all is done.
        self._prepare_data()
        report.prepare()
        return self.runner

    def _prepare_data(self) -> None:
        from .data import contents

        with contextlib.suppress(ValidationError):  # there are holes in it
            contents.prepare(DataSpec.model_validate(self.study.data), self.reporter.preparing)

    def _list_waiting(self) -> None:
        """List the candidates that a screen left waiting, those that would have come next first."""
        if self.screened is None:
            return
        listed = [
            {"model": one.model.canonical(), "assignment": one.assignments[0], "screen": self.screened.score_of(one)}
            for one in self.screened.waiting
        ]
        file = self.folder.write_json("waiting.json", listed)
        if listed:
            self.reporter.note(f"{len(listed)} candidates still waited for their turn; they are listed in {file}")

    def hours(self) -> float:
        """Return for how long the study has run, interruptions left out."""
        return (self.seconds_before + time.perf_counter() - self.began) / 3600

    def pack(self, trials: Sequence[TrialSpec], runner: Runner) -> int:
        """Return how many trials are trained as one, and say so."""
        from .engine import packs

        choice = packs.choose(self.study.engine, trials, runner)
        if choice.members > 1:
            self.reporter.note(f"engine: {choice}")
        self.manifest["packs"] = str(choice)
        return choice.members

    def loop(self, source: Source, runner: Runner, elsewhere: dict[str, Any] | None = None, pack: int = 1) -> Study:
        """Run all trials, up to `pack` as one; return the study, whose files are finished when this run is left."""
        from .engine.loop import TrialLoop
        from .engine.packs import packing

        TrialLoop(source, runner, self.folder, self.reporter, self.records, elsewhere, packing(runner, pack)).run()
        return Study(self.folder.path)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if self.runner is not None:
                self.runner.close()
            self.manifest |= {
                "finished": _now() if kind is None else None,
                "seconds": 3600 * self.hours(),
            }
            try:
                self.folder.write_json("manifest.json", self.manifest)
                self._list_waiting()
                study = Study(self.folder.path)
                best = study.find_best()
                if best is not None:
                    self.folder.write_json("best.json", best)
                front = study.find_front()
                if len(front) > 1:
                    self.folder.write_json("front.json", front)
                study.report()
            except StemlabError:
                if kind is None:  # otherwise a disk that is full, say, has been complained of already
                    raise
        finally:
            self.reporter.__exit__()
            self.folder.close()

    def _seconds_before(self) -> float:
        """Return for how long the study ran before it was interrupted; as its trials say where it was killed."""
        if not (self.folder.path / "manifest.json").exists():
            return 0.0
        told: float | None = self.folder.read_json("manifest.json").get("seconds")
        if told is not None:
            return told
        at_a_time = self.study.search.concurrency if isinstance(self.study, SearchSpec) else 1
        return sum(record.metrics.get("seconds", 0.0) for record in self.records) / at_a_time


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
