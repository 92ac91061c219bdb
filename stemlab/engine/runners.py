"""Which runner an engine's kind stands for."""

from __future__ import annotations

from pathlib import Path

from ..spec import EngineSpec
from . import slots
from .embedded import RETRIES, EmbeddedRunner, InlineRunner
from .runner import Runner


def start(engine: EngineSpec, trials: int, keep: Path) -> Runner:
    """Start the runner of a study: for as many trials at a time as there may be, and as there is room for.

    `keep` is where trials of this machine keep their state. EngineError, at once, for what cannot be had.
    """
    retries = RETRIES if engine.retries is None else engine.retries
    places = slots.plan(engine, trials)
    if engine.workers == 0:
        return InlineRunner(places[0], keep)
    return EmbeddedRunner(places, keep, retries)
