"""`stemlab watch`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import status as words
from .output import console

if TYPE_CHECKING:
    from stemlab.status import Status

NAME = "watch"
_SHARE = 10
"""A look may take one part in so many of the time, lest watching a large study slows its trials."""


def run(
    folder: Annotated[Path, typer.Argument(help="The folder of a study, such as runs/conv3x3.")],
    every: Annotated[float, typer.Option(min=0.1, help="Seconds from one look to the next.")] = 2.0,
) -> None:
    """Watch a study from another terminal until it ends. Reads only: Ctrl-C ends the watching, not the study."""
    if sys.stdout.isatty():
        _live(folder, every)
    else:
        _plain(folder, every)


def _looks(folder: Path, every: float) -> Iterator[Status]:
    """Yield where the study stands, until it runs no more."""
    from stemlab.status import Watch

    watch = Watch(folder)
    while True:
        began = time.monotonic()
        found = watch.look()
        yield found
        if found.state != "running":
            return
        time.sleep(max(every, _SHARE * (time.monotonic() - began)))


def _live(folder: Path, every: float) -> None:
    from rich.live import Live
    from rich.text import Text

    with Live(console=console(), auto_refresh=False) as live:
        for found in _looks(folder, every):
            live.update(Text("\n".join(words.lines(found))), refresh=True)


def _plain(folder: Path, every: float) -> None:
    """Print a line whenever there is something new, and at the end all there is to say."""
    before: tuple[object, ...] = ()
    for found in _looks(folder, every):
        if found.state != "running":
            break
        now = (found.counts, found.best, found.notes)
        if now != before:
            best = f", best {words.best(found.best[0])}" if len(found.best) == 1 else ""
            print(f"{words.done(found)}, {len(found.running)} running{best}", flush=True)
        before = now
    print("\n".join(words.lines(found)), flush=True)
