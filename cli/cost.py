"""`stemlab cost`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stemlab.quantities import human

from .output import Json, console, print_json, put_on

NAME = "cost"


def run(
    specs: Annotated[list[str], typer.Argument(help="Models: spec files, or names from the zoo.")],
    body: Annotated[str | None, typer.Option(help="Put stems from the zoo on this body, one of timm's ViTs.")] = None,
    diagram: Annotated[Path | None, typer.Option(help="Draw the stems side by side into this SVG file.")] = None,
    json: Json = False,
) -> None:
    """Count what models cost, exactly and without building them."""
    import stemlab

    sources = [put_on(spec, body) for spec in specs]
    drawn = None if diagram is None else stemlab.diagram(*sources, titles=specs if body else None).save(diagram)
    rows: list[dict[str, Any]] = []
    for spec, source in zip(specs, sources, strict=True):
        matched = stemlab.match(source)
        rows.append({"spec": spec, **matched.cost.as_dict(), "match": matched.as_dict()})
    if json:
        print_json(rows)
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    table.add_column("spec")
    for heading in (
        "flops",
        "bias adds",
        "params",
        "activations",
        "stem flops",
        "stem params",
        "stem share",
        "depth",
        "match",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        error = row["match"]["error"]
        table.add_row(
            escape(row["spec"]),
            *(
                human(row[name])
                for name in ("flops", "bias_adds", "params", "activations", "stem_flops", "stem_params")
            ),
            f"{row['stem_flops_share']:.1%}",
            str(row["match"]["depth"]),
            "" if error is None else f"{error:+.2%}",
        )
    console().print(table)
    if drawn:
        print(f"wrote {drawn}")
    print("flops are multiply-adds of one image; pycls's count is flops + bias adds; --json gives exact numbers")
