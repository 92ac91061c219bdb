"""`stemlab status`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemlab.quantities import duration

from .output import Json, print_json

if TYPE_CHECKING:
    from stemlab.status import Status

NAME = "status"
_NOTES = 5


def run(
    folder: Annotated[Path, typer.Argument(help="The folder of a study, such as runs/conv3x3.")],
    json: Json = False,
) -> None:
    """Say what a study is doing, from another terminal: what is done, what runs, the best so far. Reads only."""
    from stemlab.status import status

    found = status(folder)
    if json:
        print_json(found.as_dict())
        return
    for line in lines(found):
        print(line)


def lines(status: Status) -> Iterator[str]:
    """Yield what there is to say about a study, a line each."""
    yield f"{status.name}: {headline(status)}"
    yield f"  {done(status)}"
    if status.per_hour is not None and status.seconds_left is not None:
        yield f"  {pace(status.per_hour, status.seconds_left)}"
    for row in status.running:
        yield f"  runs    {running(row)}"
    name = "best" if len(status.best) == 1 else "front"
    for row in status.best:
        yield f"  {name:<7} {best(row)}"
    for note in status.notes[-_NOTES:]:
        yield f"  note    {note}"
    if status.page:
        yield f"  page    {status.page}"


def headline(status: Status) -> str:
    """Return the state of a study, and why it is so."""
    return f"{status.state}: {status.why}" if status.why else status.state


def done(status: Status) -> str:
    """Return how many trials are done, and what became of them."""
    each = ", ".join(f"{number} {name}" for name, number in status.counts.items())
    return f"{status.done} of {status.total} trials{f': {each}' if each else ''}"


def pace(per_hour: float, seconds_left: float) -> str:
    """Return how fast it goes, and how long it will take."""
    rate = f"{per_hour:.1f} trials an hour" if per_hour < 60 else f"{per_hour / 60:.1f} trials a minute"
    return f"{rate}, at most {duration(seconds_left)} to go" if seconds_left else rate


def running(row: dict[str, Any]) -> str:
    """Return what a trial is doing."""
    text = f"{row['trial']} #{row['proposal']} seed {row['seed']}"
    if not row["epoch"]:
        return f"{text}, starting"
    top1 = "" if row["top1"] is None else f", top1 {row['top1']:.4f}"
    return f"{text}, epoch {row['epoch']:g} of {row['epochs']:g}{top1}"


def best(row: dict[str, Any]) -> str:
    """Return what a proposal came to."""
    values = ", ".join(f"{name} {value:.5g}" for name, value in row["values"].items())
    return f"#{row['proposal']} {values}: {row['label']}"
