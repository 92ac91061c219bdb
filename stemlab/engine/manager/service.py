"""Where NNI's manager starts trials: its training service, in NNI's words, and what our clients there need to know."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..slots import Slot
from ..work import TRAIN


@dataclass(frozen=True)
class Service:
    """A training service.

    `config` is NNI's `trainingService`; it may lack what all services have in common (the command and its folder).
    `settings` is what trial.py reads where it runs: `folder` (for sockets, locks and logs; short, of this user alone),
    `slots` (the environment of each), `work`, `keep`, `cwd`, `life` (a file whose lock this process holds, null on
    other machines) and `idle` (after how many seconds without an order a host ends, null for never). `command` starts
    trial.py in the folder of its code. `hosts`: further HOST:PORT by which trials address the manager. `is_here`:
    trials run on this machine, where hosts can be started beforehand. `mends`: what loopback.js must have mended.
    """

    slots: int
    config: dict[str, Any]
    settings: dict[str, Any]
    command: str
    hosts: tuple[str, ...] = ()
    is_here: bool = False
    mends: frozenset[str] = frozenset({"listen", "requests", "manager", "pairing", "tuner"})


MakeService = Callable[[Path], Service]
"""From the private folder of the experiment to its service. The lock that `life` may name is of `life` in it."""


def local(slots: list[Slot], keep: Path | None = None, work: str = TRAIN, command: str | None = None) -> MakeService:
    """Return what makes NNI's service `local`, one trial at a time on each slot. `command` is another one for tests."""

    def make(folder: Path) -> Service:
        settings = {
            "folder": str(folder / "slots"),
            "slots": [slot.environment() for slot in slots],
            "work": work,
            "keep": None if keep is None else str(keep.absolute()),
            "cwd": os.getcwd(),
            "life": str(folder / "life"),
            "idle": None,
        }
        starts = command or shlex.join([sys.executable, "-I", "-S", "trial.py"])
        # Its GPU scheduling never starts a trial on a machine with one GPU, so the slots say which GPUs a trial sees.
        config = {"platform": "local", "reuseMode": False, "maxTrialNumberPerGpu": 1}
        return Service(len(slots), config, settings, starts, is_here=True)

    return make
