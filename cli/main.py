"""`stemlab`: the entry point, and what errors look like."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

import typer

from stemlab.errors import StemlabError

from . import ablate, build, cost, doctor, report, schema, search, status, train, watch, zoo
from .output import complain

app = typer.Typer(
    help="Which stem should my vision transformer have? Search and ablation of stems at matched cost.",
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (search, ablate, train, status, watch, report, build, cost, zoo, schema, doctor):
    app.command(command.NAME)(command.run)


def main() -> None:
    """Run the command line; exit codes: 0 done, 1 ran and failed, 2 bad input, 130 interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        code = app(args=sys.argv[1:] or ["--help"], standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except StemlabError as error:
        complain(f"error: {error}")
        sys.exit(error.exit_code)
    except MemoryError:
        complain("error: this machine has too little memory for that")
        sys.exit(1)
    except (KeyboardInterrupt, typer.Abort):  # Typer turns the first into the second on its way
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output (head, say) has gone; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        # Typer's usage errors are Click's, or those of a copy of its own, by version; both know their message.
        if not hasattr(error, "format_message"):
            raise
        complain(f"error: {error.format_message()} (try --help)")
        sys.exit(2)


_interrupts = 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The first signal stops the work in an orderly way; the second one ends the process on the spot.

    Workers notice the end of their parent by themselves, and records are whole lines, so that is safe too.
    """
    global _interrupts
    _interrupts += 1
    if _interrupts > 1:
        os._exit(130)
    raise KeyboardInterrupt
