"""`stemlab zoo`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemlab.quantities import human

from .output import Json, console, layer_table, print_json

if TYPE_CHECKING:
    from stemlab import zoo

NAME = "zoo"


def run(
    name: Annotated[str | None, typer.Argument(help="One entry, to be shown whole.")] = None,
    family: Annotated[str | None, typer.Option(help="Only this family, such as levit.")] = None,
    stride: Annotated[int | None, typer.Option(min=1, help="Only stems of this total stride.")] = None,
    max_params: Annotated[int | None, typer.Option(min=0, help="Only stems of at most so many parameters.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the list as a Markdown table.")] = False,
    json: Json = False,
) -> None:
    """List published stems with their cost, or show one: layers, citation, BibTeX."""
    from stemlab import zoo

    if name:
        _show(zoo.get(name), json)
        return
    entries = zoo.select(family=family, stride=stride, max_params=max_params)
    if json:
        print_json([entry.as_dict() for entry in entries])
        return
    if markdown:
        print(zoo.table(entries))
        return
    from rich.table import Table

    table = Table(caption=f"{len(entries)} stems, each at the width and image size it was published with")
    for heading in ("name", "family", "citation"):
        table.add_column(heading, overflow="fold")
    for heading in ("stride", "output", "flops", "params"):
        table.add_column(heading, justify="right")
    for entry in entries:
        table.add_row(
            entry.name,
            entry.family,
            entry.paper.citation,
            str(entry.golden["stride"]),
            "x".join(map(str, entry.golden["output"])),
            human(entry.golden["flops"]),
            human(entry.golden["params"]),
        )
    console().print(table)


def _show(entry: zoo.ZooEntry, json: bool) -> None:
    if json:
        print_json(entry.as_dict())
        return
    trace = entry.trace()
    print(f"{entry.name}: {entry.title}")
    print(f"{entry.paper.title}, {entry.paper.citation} ({entry.paper.year})\nsource: {entry.source}")
    if entry.notes:
        print(f"notes: {entry.notes}")
    print(f"checked: {entry.checked}")
    console().print(layer_table(trace, f"on an image of {'x'.join(map(str, trace.start))}"))
    print("stem:  " + _counts(entry.golden))
    if entry.golden_model:
        print("model: " + _counts(entry.golden_model))
    print(f"\n{entry.paper.bibtex()}\n")
    body = "" if entry.model else " --body vit_small_patch16_224"
    print(f"use it: stemlab build {entry.name}{body}, or `stem: {entry.name}` in a spec")


def _counts(golden: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value:,}" for key, value in golden.items() if isinstance(value, int))
