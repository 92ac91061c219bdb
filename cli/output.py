"""What all commands print with."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from stemlab.quantities import human

if TYPE_CHECKING:
    from rich.console import Console


def complain(text: str) -> None:
    """Print to stderr."""
    print(text, file=sys.stderr, flush=True)


def print_json(data: Any) -> None:
    """Print one JSON document to stdout."""
    from stemlab.spec.files import dump_json

    sys.stdout.write(dump_json(data))


def console(stderr: bool = False) -> Console:
    """Return a rich console; wide enough for the tables where the output is not a terminal."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=140)


def match_line(matched: dict[str, Any]) -> str:
    """Return one line on a match: what became of the body, and what remains."""
    if matched.get("error") is None:
        return "not matched to a reference"
    return (
        f"depth {matched['depth']}, MLP width {matched['mlp_hidden']}: {matched['metric']} are {matched['error']:+.2%} "
        f"off the reference's {human(matched['target'])}"
    )
