"""The public functions on models: load, cost, measure, match, build, build_stem, attach, diagram."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from . import matching, zoo
from .costing import Cost
from .errors import InfeasibleError, SpecError
from .matching import MatchResult
from .spec import ModelSpec, ShapeError, StemSpec, Trace
from .spec.base import pair
from .spec.files import Document, Location, read, validate

if TYPE_CHECKING:
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    from .builders import Stem
    from .builders.attach import Model
    from .drawing import Diagram
    from .engine.measuring import Measured

Source = str | os.PathLike[str] | dict[str, Any] | ModelSpec


def load_document(source: Source) -> Document:
    """Return a model as it was written, and where."""
    model, document, path = _read(source)
    data = document.data
    for key in path:
        data = data[key]
    places = {at[len(path) :]: place for at, place in document.places.items() if at[: len(path)] == path}
    return Document(model.canonical() if data is None else data, document.source, places)


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


def measure(
    *sources: Source,
    batch: int = 64,
    device: str | None = None,
    precision: str = "fp32",
    threads: int | None = None,
    seconds: float = 5.0,
) -> tuple[Measured, ...]:
    """Return what models take on this machine, one Measured a source: `.inference` and `.training`, beside `cost`.

    Milliseconds of one image and of a batch, images per second, peak bytes and joules, as far as the machine tells.
    Several models are measured in turn (A, B, A, B, ...), each in a process of its own, with the ratio to the first.
    `batch` is halved until it fits; `device` is a GPU where torch sees one; `threads` are torch's own choice unless
    given; each time is measured for about `seconds`, or six times where a model takes longer.

    SpecError for values that cannot be right; EngineError where there is no such device or too little memory.
    """
    from .engine.measuring import measure as measure_models

    return measure_models([match(source).model for source in sources], batch, device, precision, threads, seconds)


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
