"""`stemlab schema`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from .output import print_json

NAME = "schema"


def run(
    kind: Annotated[Literal["model", "search", "ablation"], typer.Argument(help="Which kind of file.")] = "search",
) -> None:
    """Print the JSON Schema of a spec file, for editors."""
    from stemlab.spec.schema import json_schema

    print_json(json_schema(kind))
