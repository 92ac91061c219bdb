"""`stemlab build`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stemlab.errors import EngineError, SpecError
from stemlab.quantities import human, side

from .output import Json, console, layer_table, match_line, print_json, put_on

if TYPE_CHECKING:
    from torch import nn

    from stemlab import MatchResult, ModelSpec
    from stemlab.builders.export import Exported

NAME = "build"


def run(
    spec: Annotated[str, typer.Argument(help="A model: spec.json or .yaml, or a name from the zoo.")],
    body: Annotated[str | None, typer.Option(help="Put a stem from the zoo on this body, one of timm's ViTs.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write config.json and model.safetensors into this folder.")] = None,
    export: Annotated[
        list[str] | None,
        typer.Option(help="Write model.onnx (onnx) or torch's exported program (pt2) there too; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of the initial weights.")] = 0,
    diagram: Annotated[Path | None, typer.Option(help="Draw the stem into this SVG file.")] = None,
    json: Json = False,
) -> None:
    """Build a model from its spec; show its layers, shapes and cost."""
    import stemlab

    kinds = list(dict.fromkeys(export or []))
    if kinds and out is None:
        raise SpecError(f"--export (={kinds[0]}) needs a folder to write into; expected --out DIR too")
    _require(kinds)
    source = put_on(spec, body)
    model = stemlab.load(source)
    matched = stemlab.match(source)
    if diagram is not None:
        stemlab.diagram(model, titles=[Path(spec).name]).save(diagram)
    try:
        built = stemlab.build(source, seed=seed)
    except RuntimeError as error:
        raise EngineError(f"{spec}: cannot be built on this machine: {str(error).splitlines()[0]}") from None
    params = sum(p.numel() for p in built.parameters())
    if out is not None:
        from stemlab.builders.hub import save

        save(built, model, out)
    exported = _export(built, out, kinds) if out is not None else []
    if json:
        print_json(
            {
                "spec": model.canonical(),
                "digest": model.digest,
                "body": matched.model.body.canonical(),
                "match": matched.as_dict(),
                "cost": matched.cost.as_dict(),
                "built_params": params,
                "out": str(out) if out else None,
                "diagram": str(diagram) if diagram else None,
                "exported": [{"path": str(path), "difference": difference} for path, difference in exported],
            }
        )
        return
    _show(model, matched, params)
    if diagram is not None:
        print(f"wrote   {diagram}")
    if out is not None:
        print(f"wrote   {out / 'config.json'}, {out / 'model.safetensors'}")
    for path, difference in exported:
        print(f"wrote   {path}, its outputs at most {difference:.1e} from the model's")


def _require(kinds: list[str]) -> None:
    """Refuse before anything is built or written."""
    if kinds:
        from stemlab.builders.export import require

        for kind in kinds:
            require(kind)


def _export(built: nn.Module, out: Path, kinds: list[str]) -> list[Exported]:
    if not kinds:
        return []
    from stemlab.builders.export import export

    return [export(built, out, kind) for kind in kinds]


def _show(model: ModelSpec, matched: MatchResult, params: int) -> None:
    from stemlab.spec.base import pair

    body, cost = matched.model.body, matched.cost
    height, width = pair(model.image_size)
    steps = model.trace()
    console().print(layer_table(steps, f"stem of {model.digest}, on {height}x{width} pixels"))
    print(
        f"stem    {steps.tokens} tokens of {body.dim}, stride {side(steps.stride)}, "
        f"receptive field {side(steps.receptive_field)}, {cost.stem_flops_share:.1%} of the flops"
    )
    print(
        f"body    depth {body.depth}, {body.heads} heads, MLP width {body.mlp_hidden}, pool {body.pool}, "
        f"{model.classes} classes"
    )
    print(
        f"cost    {human(cost.flops)} multiply-adds, {human(cost.params)} parameters, "
        f"{human(cost.activations)} activations"
    )
    print(f"match   {match_line(matched.as_dict())}")
    agrees = "as counted" if params == cost.params else f"COUNTED {cost.params:,}: please report this"
    print(f"built   {params:,} parameters, {agrees}")
