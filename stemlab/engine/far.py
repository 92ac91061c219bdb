"""A worker at the far end of an SSH connection: told on stdin, before any order, what it is to be.

It goes with the connection and takes all it started along; also where the connection is dead and nobody has said so,
such as when the other machine lost its power: it hears no sign of life any more.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from ..data import cache
from . import worker

SIGN_OF_LIFE = 30.0
"""Seconds between the empty lines that the near end sends."""

_SILENCE = 10 * SIGN_OF_LIFE
_OLD = 30 * 24 * 3600.0
"""Seconds behind which the state of paused trials is no longer of use to anybody."""


def main() -> None:
    """Read a line of settings (work, environment, keep: the name of the folder for states), then serve."""
    # A group of our own, so that our end is the end of what trials start, and not of the shell that reports it.
    os.setpgrp()
    settings = json.loads(sys.stdin.readline())
    os.environ.update(settings["environment"])
    keep = [] if settings["keep"] is None else [str(_states(settings["keep"]))]
    worker.main([settings["work"], *keep], end=_end, silence=_SILENCE)


def _end() -> None:
    os.killpg(0, signal.SIGKILL)


def _states(name: str) -> Path:
    """Return the folder of a study's paused trials, ours alone; those of studies long past are removed."""
    home = cache.folder() / "trials"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    for folder in home.iterdir():
        if folder.name != name and time.time() - folder.stat().st_mtime > _OLD:
            shutil.rmtree(folder, ignore_errors=True)
    states = home / name
    states.mkdir(exist_ok=True, mode=0o700)
    return states


if __name__ == "__main__":
    main()
