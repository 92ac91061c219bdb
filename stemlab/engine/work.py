"""What a process does that runs trials, whichever engine started it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ..records import TrialRecord
from ..spec import Order
from .runner import Progress, failed

Work = Callable[[Order, Progress, Path | None], TrialRecord]
"""From an order to its record. The path is a folder where trials may keep their state, None for nowhere."""

TRAIN = "stemlab.engine.work:train"
"""The name of the work of all studies; simulations and tests have others."""


def prepare(name: str = TRAIN) -> Work:
    """Import what the work needs and return it. The environment says how many CPU threads there are (slots.Slot)."""
    module, _, function = name.partition(":")
    work: Work = getattr(import_module(module), function)
    if name != TRAIN:
        return work
    import torch

    from .. import train  # noqa: F401

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if torch.cuda.is_available():
        # The same trial is to give the same numbers again; a kernel that cannot do so warns in the log.
        torch.use_deterministic_algorithms(True, warn_only=True)
    return work


def train(order: Order, progress: Progress, keep: Path | None = None) -> TrialRecord:
    """Train the model of an order."""
    from ..train import run_trial

    return run_trial(order.trial, progress, until=order.until, floor=order.floor, keep=keep)


def perform(work: Work, order: Order, progress: Progress, keep: Path | None = None) -> TrialRecord:
    """Do the work; whatever it raises becomes a failed record."""
    try:
        return work(order, progress, keep)
    except Exception:
        return failed(order.trial, traceback.format_exc())
