"""`stemlab zoo`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from .output import console, human, print_json

NAME = "zoo"


def run(
    name: Annotated[str | None, typer.Argument(help="One entry, to be shown whole.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")] = False,
) -> None:
    """List published stems, or show one."""
    from stemlab import zoo

    entries = [zoo.get(name)] if name else [zoo.get(each) for each in zoo.names()]
    if json:
        documents: list[dict[str, Any]] = [{**asdict(e), "model": e.model.canonical()} for e in entries]
        print_json(documents[0] if name else documents)
        return
    if name:
        entry = entries[0]
        print(f"{entry.name}: {entry.title}\n{entry.citation} ({entry.year}), {entry.source}")
        if entry.notes:
            print(f"initialisation: {entry.notes}")
        print("golden: " + ", ".join(f"{key} {value:,}" for key, value in entry.golden.items()))
        for step in entry.model.trace():
            print(f"  {step.layer.describe():<40} {'x'.join(map(str, step.after))}")
        print(f"use it: stemlab build {entry.name}, or `stem: {entry.name}` in a spec")
        return
    from rich.table import Table

    table = Table()
    for heading in ("name", "title", "citation"):
        table.add_column(heading)
    for heading in ("flops", "params"):
        table.add_column(heading, justify="right")
    for entry in entries:
        table.add_row(
            entry.name,
            entry.title,
            entry.citation,
            human(entry.golden["flops"]),
            human(entry.golden["params"]),
        )
    console().print(table)
