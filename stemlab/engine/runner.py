"""Runners: where trials run. A runner knows nothing of proposals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..errors import StemlabError
from ..records import TrialRecord
from ..spec import EngineSpec, Order, TrialSpec

RETRIES = 1
"""How often a trial is run again whose process or machine died, unless the study says otherwise."""

Progress = Callable[[dict[str, float]], None]
PackProgress = Callable[[int, dict[str, float]], None]
"""Gets the place of a trial among those that are run as one, and a row of its curve."""


class RunnerClosed(StemlabError):
    """The runner was closed while a trial ran."""


class Runner(Protocol):
    """What a study asks of a runner. `run` blocks, and may be called from as many threads as there are slots."""

    slots: int

    def run(self, order: Order, progress: Progress) -> TrialRecord:
        """Run one trial; whatever happens to it, return a record. RunnerClosed once the runner was closed."""

    def close(self) -> None:
        """Stop all trials at once and leave no process behind."""


def retries_of(engine: EngineSpec) -> int:
    """Return how often a study has a trial run again whose process or machine died."""
    return RETRIES if engine.retries is None else engine.retries


def failed(trial: TrialSpec, error: str) -> TrialRecord:
    """Return the record of a trial that broke."""
    return TrialRecord.of(trial, "failed", error=error)
