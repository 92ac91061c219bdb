"""What a process does that runs trials, whichever engine started it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

from ..records import TrialRecord
from ..spec import Order
from .runner import PackProgress, Progress, failed
from .slots import PROCESSES, SHARED

Work = Callable[[Order, Progress, Path | None], TrialRecord]
"""From an order to its record. The path is a folder where trials may keep their state, None for nowhere."""

TRAIN = "stemlab.engine.work:train"
"""The name of the work of all studies; simulations and tests have others."""


def find(name: str = TRAIN) -> Work:
    """Import what the work needs and return it."""
    module, _, function = name.partition(":")
    work: Work = getattr(import_module(module), function)
    if name == TRAIN:
        from .. import train  # noqa: F401 (torch and timm, which take seconds)
    return work


def prepare(name: str = TRAIN) -> Work:
    """Return the work, and settle this process to it: the environment says how many CPU threads there are."""
    work = find(name)
    if name == TRAIN:
        from ..train import settle

        settle()
    return work


def train(order: Order, progress: Progress, keep: Path | None = None, device: str | None = None) -> TrialRecord:
    """Train the model of an order, in as many processes as the environment says (slots.Slot)."""
    from ..train import Saving, run_distributed, run_trial

    processes = int(os.environ.get(PROCESSES, "1"))
    try:
        if processes > 1:
            return run_distributed(order, progress, processes, Saving(keep) if keep else None)
        return run_trial(order.trial, progress, device, until=order.until, floor=order.floor, keep=keep)
    finally:
        if os.environ.get(SHARED) == "1":
            _leave_the_gpu()


def _leave_the_gpu() -> None:
    """Give back what this process still holds of the memory of its GPU, but for the CUDA context."""
    import gc

    import torch

    from ..data import load

    load.forget()
    gc.collect()
    torch.cuda.empty_cache()


def perform(work: Work, order: Order, progress: Progress, keep: Path | None = None) -> TrialRecord:
    """Do the work; whatever it raises becomes a failed record."""
    try:
        return work(order, progress, keep)
    except Exception:
        return failed(order.trial, traceback.format_exc())


def perform_pack(
    work: Work, orders: Sequence[Order], progress: PackProgress, keep: Path | None = None, device: str | None = None
) -> list[TrialRecord]:
    """Train the models of orders as one. Where that cannot be, such as for a layer unknown to vmap, do each alone."""
    if work is train:
        from ..train.packed import run_packed

        try:
            return run_packed([order.trial for order in orders], progress, device)
        except Exception:
            traceback.print_exc()
        finally:
            if os.environ.get(SHARED) == "1":
                _leave_the_gpu()
    alone = partial(train, device=device) if work is train else work
    return [perform(alone, order, partial(progress, member), keep) for member, order in enumerate(orders)]
