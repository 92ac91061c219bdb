"""`stemlab cost`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemlab.errors import SpecError
from stemlab.quantities import human, prefixed

from .output import Json, complain, console, print_json, put_on

if TYPE_CHECKING:
    from rich.table import Table

NAME = "cost"

_COUNTS = ("flops", "bias_adds", "params", "activations", "stem_flops", "stem_params")


def run(
    specs: Annotated[list[str], typer.Argument(help="Models: spec files, or names from the zoo.")],
    body: Annotated[str | None, typer.Option(help="Put stems from the zoo on this body, one of timm's ViTs.")] = None,
    diagram: Annotated[Path | None, typer.Option(help="Draw the stems side by side into this SVG file.")] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure time, memory and energy on this machine, too.")
    ] = False,
    batch: Annotated[
        int | None, typer.Option(help="Images at a time, halved until they fit.", show_default="64")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.", show_default="a GPU where there is one")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16.", show_default="fp32")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.", show_default="torch's own choice")] = None,
    seconds: Annotated[float | None, typer.Option(help="How long each is timed.", show_default="5")] = None,
    json: Json = False,
) -> None:
    """Count what models cost, exactly and without building them; with --measure also what they take here."""
    import stemlab

    options = {"batch": batch, "device": device, "precision": precision, "threads": threads, "seconds": seconds}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if given and not measure:
        raise SpecError(f"--{next(iter(given))} says how to measure; add --measure")
    sources = [put_on(spec, body) for spec in specs]
    drawn = None if diagram is None else stemlab.diagram(*sources, titles=specs if body else None).save(diagram)
    rows: list[dict[str, Any]] = []
    for spec, source in zip(specs, sources, strict=True):
        matched = stemlab.match(source)
        rows.append({"spec": spec, **matched.cost.as_dict(), "match": matched.as_dict()})
    if measure:
        complain("measuring: inference, then training; a few minutes where models are large")
        for row, measured in zip(rows, stemlab.measure(*sources, **given), strict=True):
            row["measured"] = measured.as_dict()
    if json:
        print_json(rows)
        return
    console().print(_counted(rows))
    if drawn:
        print(f"wrote {drawn}")
    print("flops are multiply-adds of one image; pycls's count is flops + bias adds; --json gives exact numbers")
    if measure:
        print_measured(rows)


def _counted(rows: list[dict[str, Any]]) -> Table:
    headings = (*(name.replace("_", " ") for name in _COUNTS), "stem share", "depth", "match")
    table = _table("spec", *headings)
    for row in rows:
        error = row["match"]["error"]
        table.add_row(
            _text(row["spec"]),
            *(human(row[name]) for name in _COUNTS),
            f"{row['stem_flops_share']:.1%}",
            str(row["match"]["depth"]),
            "" if error is None else f"{error:+.2%}",
        )
    return table


def print_measured(rows: list[dict[str, Any]]) -> None:
    """Print what was measured, and where."""
    table = _table("", "measured", "1 image, ms", "90 %", "batch", "images/s", "CPU ms/image", "peak memory", "J/image")
    for mode in ("inference", "training"):
        for row in rows:
            found = row["measured"][mode]
            table.add_row(
                _text(row["spec"]),
                mode,
                _range(found["latency"]["ms"]),
                f"{found['latency']['p90_ms']:.3g}",
                str(found["batch"]),
                _range(found["images_per_second"]),
                f"{found['processor_ms']['median']:.3g}",
                _memory(found),
                "not told" if found["joules"] is None else f"{found['joules']:.3g}",
            )
    console().print(table)
    for mode in ("inference", "training"):
        for row in rows[1:]:
            found = row["measured"][mode]
            print(
                f"{mode}: {row['spec']} takes {_range(found['ratio'])} times as long as {rows[0]['spec']}, "
                f"with one image {_range(found['latency_ratio'])} times"
            )
    where = rows[0]["measured"]["machine"]
    print(
        f"on {where['gpu'] or where['cpu']}, {where['threads']} CPU threads, torch {where['torch']}, "
        f"{where['precision']}; medians of rounds, in brackets their 95 % intervals"
    )
    if where["load"] > where["cores"] / 2:
        complain(f"the machine was busy (load {where['load']:.1f} on {where['cores']} cores): times are too long")


def _range(found: dict[str, float]) -> str:
    median, low, high = (f"{scaled:.3g}{prefix}" for scaled, prefix in map(prefixed, found.values()))
    return f"{median} ({low} to {high})"


def _memory(found: dict[str, Any]) -> str:
    if found["peak_bytes"] is None:
        return "not told"
    before = f", {human(found['bytes_before'])}B before" if found["bytes_before"] else ""
    return f"{human(found['peak_bytes'])}B{before}"


def _table(first: str, *headings: str) -> Table:
    from rich.table import Table

    table = Table()
    table.add_column(first)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _text(name: str) -> str:
    from rich.markup import escape

    return escape(name)
