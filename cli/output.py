"""What all commands print with."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemlab.quantities import human, side

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from stemlab.spec import Step, Trace

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")]
"""The option of all commands that have something to tell."""


def complain(text: str) -> None:
    """Print to stderr."""
    print(text, file=sys.stderr, flush=True)


def print_json(data: Any) -> None:
    """Print one JSON document to stdout."""
    # As stemlab.spec.files writes it, which takes pydantic, and a tenth of a second, to import.
    sys.stdout.write(json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def rows(frame: Any) -> Any:
    """Return the rows of a DataFrame as JSON has them: what is missing is null."""
    return json.loads(frame.to_json(orient="records"))


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


def put_on(stem: str, body: str | None) -> str | dict[str, Any]:
    """Return what to load: a model by its name or path, or with --body the model of a stem from the zoo."""
    return stem if body is None else {"stem": stem, "body": body}


def layer_table(trace: Trace, title: str | None = None) -> Table:
    """Return the layers of a stem, those of branches below the layer that merges them."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("layer")
    for heading in ("output", "stride", "sees", "flops", "params"):
        table.add_column(heading, justify="right")
    for text, step, inside in _layers(trace):
        if step is None:
            table.add_row(text)
            continue
        table.add_row(
            escape(text),
            "x".join(map(str, step.after)),
            "" if inside else side(step.stride),
            "" if inside else side(step.receptive_field),
            human(step.counts.flops) if step.counts.flops else "",
            human(step.counts.params) if step.counts.params else "",
        )
    return table


def _layers(trace: Trace) -> Iterator[tuple[str, Step | None, bool]]:
    """Yield the words for each layer, the layer at work (None for an identity), and whether it is in a branch."""
    from stemlab.spec import ParallelLayer

    for step in trace:
        if not isinstance(step.layer, ParallelLayer):
            yield step.layer.describe(), step, False
            continue
        yield f"{step.layer.merge} of {len(step.layer.branches)} branches", step, False
        for number, branch in enumerate(step.layer.traces(step.before, trace.dim), start=1):
            if not branch:
                yield f"  {number}: identity", None, True
            for index, (text, inner, _) in enumerate(_layers(branch)):
                lead = f"{number}:" if index == 0 else "  "
                yield f"  {lead} {text}", inner, True
