"""What `search` and `ablate` have in common: their options, how a study is followed, and how it ends."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import complain, print_json

if TYPE_CHECKING:
    from stemlab import Study

    from .live import Lines

Out = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", help="The study folder; runs/<name>, or the next free runs/<name>-2, ..., unless given."
    ),
]
Engine = Annotated[str | None, typer.Option(help="Who runs the trials: embedded, nni or ray.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change one value; may be repeated.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with an interrupted study: that of --out, or the last runs/<name>.")
]


def changes(set_: Sequence[str] | None, own: Mapping[str, Any]) -> list[str]:
    """Return the changes of --set, and behind them those that have options of their own: path -> value."""
    return [*(set_ or []), *(f"{path}={value}" for path, value in own.items() if value is not None)]


def follow(
    kind: str,
    run: Callable[[Lines], Study],
    show: Callable[[Study], None],
    as_json: Callable[[Study], dict[str, Any]] | None,
) -> None:
    """Run a study ("search" or "ablation") before the user's eyes and show what it found, as JSON if `as_json`.

    Ends the command with 130 when it is interrupted and with 1 where no trial finished well.
    """
    from .live import watcher

    with watcher(kind) as reporter:
        try:
            study = run(reporter)
        except KeyboardInterrupt:
            reporter.close()
            complain(
                f"interrupted: {reporter.done} trials are recorded; go on with\n  {resume_command(reporter.folder)}"
            )
            raise typer.Exit(130) from None
    best = study.best
    if as_json is None:
        show(study)
    else:
        folder = study.folder.path
        found = {"folder": str(folder), "report": str(folder / "report.html")}
        print_json({**found, "best": best.canonical() if best else None, **as_json(study)})
    if best is None:
        complain(f"error: no trial finished well; see the errors in {study.folder.path / 'report.html'}")
        raise typer.Exit(1)


def resume_command(folder: Path | None) -> str:
    """Return the command that goes on with the study that this process was asked for."""
    arguments = [a for a in sys.argv[1:] if a != "--resume"]
    if folder is not None and not any(a.split("=")[0] == "--out" for a in arguments):
        arguments += ["--out", str(folder)]
    return shlex.join(["stemlab", *arguments, "--resume"])
