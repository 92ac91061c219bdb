"""The public functions: load, cost, match, build, build_stem, attach, diagram, search."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from . import matching, zoo
from .candidate import Candidates
from .costing import Cost
from .errors import InfeasibleError, SpecError, StemlabError, StudyError
from .matching import MatchResult
from .records import StudyFolder, TrialRecord
from .spec import ModelSpec, SearchSettings, SearchSpec, ShapeError, StemSpec, Trace
from .spec.base import pair
from .spec.files import Document, Location, override, read, validate

if TYPE_CHECKING:
    import pandas as pd
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    from .builders import Stem
    from .builders.attach import Model
    from .drawing import Diagram
    from .engine.loop import Reporter

Source = str | os.PathLike[str] | dict[str, Any] | ModelSpec


def load(source: Source) -> ModelSpec:
    """Return the ModelSpec that a path (YAML, JSON or a folder made by `stemlab build --out`), dict or zoo name gives.

    SpecError with file:line where it is none.
    """
    return _read(source)[0]


def _read(source: Source) -> tuple[ModelSpec, Document, Location]:
    """Return a model, the document it was read from, and where in it."""
    nowhere = Document(None, "<model>")
    if isinstance(source, ModelSpec):
        return source, nowhere, ()
    path: Location = ()
    if isinstance(source, dict):
        document = Document(source, "<dict>")
    elif os.path.isdir(source):  # unlike Path's, these never raise, however strange the name
        document, path = read(Path(source) / "config.json"), ("spec",)
    elif _is_zoo_name(source):
        entry = zoo.get(source)
        if entry.model is None:
            raise SpecError(
                f"{entry.name} is a stem, not a whole model; put it on a body: "
                f"{{stem: {entry.name}, body: vit_small_patch16_224}}, or --body vit_small_patch16_224"
            )
        return entry.model, nowhere, ()
    else:
        document = read(source)
    return validate(ModelSpec, document, path), document, path


def _is_zoo_name(source: object) -> TypeGuard[str]:
    return isinstance(source, str) and os.sep not in source and "." not in source and not os.path.exists(source)


def match(source: Source) -> MatchResult:
    """Return the model with its body settled by its `match`, its cost, and how far off the cost remains.

    InfeasibleError, with the nearest there is, where nothing comes within the tolerance.
    """
    model, document, path = _read(source)
    try:
        return matching.match(model)
    except InfeasibleError as error:
        if document.data is None:  # the model was not read from a file
            raise
        raise document.infeasible((*path, "match"), str(error)) from None


def cost(source: Source) -> Cost:
    """Return the closed-form cost of a model, its body matched where it asks for it; torch is not needed."""
    return match(source).cost


def build(source: Source, seed: int | None = None, **options: Any) -> VisionTransformer | Eva:
    """Return timm's VisionTransformer or Eva for a spec: (batch, 3, H, W) -> logits (batch, classes).

    A folder made by `stemlab build --out` gives the model with its weights. `seed` fixes the initial weights;
    `options` go to timm's class, such as `dynamic_img_size=True`.
    """
    from .builders.hub import WEIGHTS, load_weights, without_weights
    from .builders.model import build_model

    settled = match(source).model
    if isinstance(source, (dict, ModelSpec)) or not (Path(source) / WEIGHTS).exists():
        return build_model(settled, seed, **options)
    model = build_model(without_weights(settled), seed, **options)
    load_weights(model, Path(source))
    return model


def build_stem(
    source: str | dict[str, Any] | StemSpec,
    dim: int | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> Stem:
    """Return a stem alone: (batch, 3, H, W) -> (batch, tokens, dim).

    `source` is a StemSpec in any of its forms. A stem from the zoo brings the width, image size and input channels that
    it was published with.
    """
    from .builders import build_stem as build_stem_module

    spec, dim, image_size, in_channels = _stem_of(source, dim, image_size, "build_stem")
    return build_stem_module(spec, dim, image_size, in_chans=in_channels)


def _stem_of(
    source: str | dict[str, Any] | StemSpec | zoo.ZooEntry,
    dim: int | None,
    image_size: int | tuple[int, int] | None,
    what: str,
) -> tuple[StemSpec, int, int | tuple[int, int], int]:
    """Return a stem, the width of its body, the size and the channels of its image, as far as given or known."""
    in_channels = 3
    if isinstance(source, str):
        source = zoo.get(source)
    if isinstance(source, zoo.ZooEntry):
        dim, image_size, in_channels = dim or source.dim, image_size or source.image_size, source.in_channels
        source = source.stem
    spec = _read_stem(source)
    image_size = image_size or 224
    if dim is None:
        if '"dim' in spec.canonical_json():
            raise InfeasibleError(
                f"the stem has layers as wide as the body it is put on; say how wide that is: {what}(stem, dim=384)"
            )
        dim = spec.trace(*pair(image_size), dim=1).end.channels
    return spec, dim, image_size, in_channels


def diagram(
    *sources: Source | StemSpec | zoo.ZooEntry,
    dim: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    titles: Sequence[str] | None = None,
) -> Diagram:
    """Return a picture of stems side by side on one scale: a notebook shows it, `.save("stem.svg")` writes it.

    A source is whatever `load` or `build_stem` takes (a name from the zoo, the path of a model, a dict, a spec), or an
    entry of the zoo. `dim` and `image_size` are for stems without a model, as in `build_stem`. Below the title of a
    model stands its stem's share of the flops, the body matched where the model asks for it. Torch is not needed.
    """
    from .drawing import Diagram
    from .drawing import diagram as draw

    found = [_trace_of(source, dim, image_size) for source in sources]
    names = [_name_of(source) for source in sources] if titles is None else titles
    return Diagram(draw([trace for trace, _ in found], names, [note for _, note in found]))


def _trace_of(
    source: Source | StemSpec | zoo.ZooEntry, dim: int | None, image_size: int | tuple[int, int] | None
) -> tuple[Trace, str]:
    """Return the trace of a stem, and what there is to say of the model that it belongs to."""
    if isinstance(source, zoo.ZooEntry) or _is_zoo_name(source):
        entry = zoo.get(source) if isinstance(source, str) else source
        if dim is None and image_size is None:
            return entry.trace(), "" if entry.model is None else _share(entry.model)
        source = entry
    if isinstance(source, (StemSpec, zoo.ZooEntry)) or (isinstance(source, dict) and "stem" not in source):
        stem, dim, image_size, in_channels = _stem_of(source, dim, image_size, "diagram")
        try:
            return stem.trace(*pair(image_size), dim, in_channels), ""
        except ShapeError as error:
            raise SpecError(f"the stem does not fit an image of {image_size} pixels: {error}") from None
    model = load(source)
    return model.trace(), _share(model)


def _share(model: ModelSpec) -> str:
    try:
        return f"{matching.match(model).cost.stem_flops_share:.1%} of the model’s flops"
    except InfeasibleError:
        return "its model cannot be matched"


def _name_of(source: Source | StemSpec | zoo.ZooEntry) -> str:
    if isinstance(source, zoo.ZooEntry):
        return source.name
    return Path(source).name if isinstance(source, (str, os.PathLike)) else ""


def attach(
    stem: str | dict[str, Any] | StemSpec,
    model: Model,
    image_size: int | tuple[int, int] | None = None,
    seed: int | None = None,
) -> Model:
    """Replace the patch embedding of a timm ViT (VisionTransformer or Eva, pretrained or not) by a stem, in place.

    Returns the model. `stem` is a StemSpec in any of its forms. All other weights stay, but for a position embedding
    on another grid of tokens, which is resampled. `image_size` is the model's unless given; `seed` fixes the stem's
    initial weights.

    SpecError where the model is no plain ViT, or where the stem does not fit its images or its width.
    """
    from .builders.attach import attach as attach_module

    return attach_module(_read_stem(stem), model, image_size, seed)


def _read_stem(source: str | dict[str, Any] | StemSpec) -> StemSpec:
    return source if isinstance(source, StemSpec) else validate(StemSpec, Document(source, "<stem>"))


class Study:
    """A study folder: `records` (a DataFrame), `best` (a ModelSpec), `report()`."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Open the folder of a study that was started; StudyError where there is none."""
        self.folder = StudyFolder(folder)
        if not (self.folder.path / "study.yaml").exists():
            raise StudyError(f"{self.folder.path}: no study.yaml: this is not the folder of a study")

    @property
    def objective(self) -> tuple[str, int]:
        """The metric that was sought, and 1 where larger is better, -1 where smaller is."""
        objective = validate(SearchSettings, read(self.folder.path / "study.yaml"), ("search",)).objective
        return objective.metric, objective.sign

    @property
    def trials(self) -> list[TrialRecord]:
        """The records of all finished trials, in the order they ended."""
        return self.folder.records()

    @property
    def records(self) -> pd.DataFrame:
        """One row a trial: how the holes were filled, metrics, cost."""
        from .analysis.ranking import to_frame

        return to_frame(self.trials)

    @property
    def best(self) -> ModelSpec | None:
        """The model of the best proposal by the validation part; None while none has finished well."""
        path = self.folder.path / "best.json"
        return load(path) if path.exists() else None

    def report(self) -> Path:
        """Write report.html and summary.md anew; return the path of the report."""
        from .report import write

        return write(self.folder)[0]


def load_study(source: str | os.PathLike[str] | dict[str, Any], changes: Sequence[str] = ()) -> Candidates:
    """Return the space of a study file (or dict), checked; `changes` are `path=value` as after --set."""
    document = Document(source, "<dict>") if isinstance(source, dict) else read(source)
    for change in changes:
        document = override(document, change)
    return Candidates(validate(SearchSpec, document), document)


def search(
    source: str | os.PathLike[str] | dict[str, Any],
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
    from .engine import slots, tuners
    from .engine.embedded import EmbeddedRunner, InlineRunner
    from .engine.loop import SearchLoop
    from .engine.proposer import NniProposer
    from .engine.quiet import Quiet

    if out is not None and not os.fspath(out).strip():
        raise SpecError("out (--out) is empty; expected the path of a folder")
    candidates = load_study(source, changes)
    candidates.require_feasible()
    study = candidates.study
    reporter = reporter or Quiet()
    folder = StudyFolder(out or _default_folder(study.name, resume))
    places = slots.plan(study.engine, study.search.concurrency * len(study.search.seeds))
    tuners.version()
    folder.open_to_write(study.canonical(), resume)
    try:
        if folder.recovered:
            reporter.note(folder.recovered)
        # The workers import torch while we import NNI and make the first proposals.
        runner = InlineRunner(places[0]) if study.engine.workers == 0 else EmbeddedRunner(places)
        try:
            proposer = NniProposer(candidates)
            loop = SearchLoop(study.search, proposer, runner, folder, reporter)
            with _Manifest(folder, resume):
                loop.run()
        finally:
            runner.close()
        return Study(folder.path)
    finally:
        folder.close()


def _default_folder(name: str, resume: bool) -> Path:
    """Return the first of runs/<name>, runs/<name>-2, ... that is free; with `resume` the one before it."""
    number, folder, before = 1, Path("runs") / name, None
    while folder.exists():
        number, folder, before = number + 1, Path("runs") / f"{name}-{number + 1}", folder
    return before if resume and before is not None else folder


class _Manifest:
    """Writes manifest.json when a study starts; at its end, however it ends, that again, best.json and the report."""

    def __init__(self, folder: StudyFolder, resumed: bool) -> None:
        from .engine import manifest

        self.folder = folder
        self.data: dict[str, Any] = {
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "started": _now(),
            "finished": None,
            "seconds": None,
            "resumed": resumed,
            "commit": manifest.commit(),
            "versions": manifest.versions(),
            "hardware": manifest.hardware(),
        }
        self.began = time.perf_counter()

    def __enter__(self) -> None:
        self.folder.write_json("manifest.json", self.data)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.data |= {
            "finished": _now() if kind is None else None,
            "seconds": time.perf_counter() - self.began,
        }
        try:
            self.folder.write_json("manifest.json", self.data)
            _write_best(self.folder)
            Study(self.folder.path).report()
        except StemlabError:
            if kind is None:  # otherwise a disk that is full, say, has been complained of already
                raise


def _write_best(folder: StudyFolder) -> None:
    from .analysis.ranking import best

    records = folder.records()
    chosen = best(records, *Study(folder.path).objective)
    if chosen is not None:
        folder.write_json("best.json", next(r.model for r in records if r.proposal == chosen))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
