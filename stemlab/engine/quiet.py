"""The reporter of those who do not watch."""

from __future__ import annotations

import logging
from pathlib import Path

from ..records import TrialRecord

_log = logging.getLogger("stemlab")


class Quiet:
    """Says nothing but notes, which go to the log of the library."""

    def preparing(self, what: str, done: int, total: int) -> None:
        """Ignore."""

    def begin(self, folder: Path, total: int, slots: int) -> None:
        """Ignore."""

    def started(self, trial: str, proposal: int, seed: int) -> None:
        """Ignore."""

    def epoch(self, trial: str, row: dict[str, float]) -> None:
        """Ignore."""

    def finished(self, record: TrialRecord, reused: bool) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Log a line."""
        _log.warning(text)
