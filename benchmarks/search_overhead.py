"""What a search costs beyond training: the shipped search with one worker and with two, in turn.

    python benchmarks/search_overhead.py [rounds]

Start-up is the time until the first trial trains (imports of torch, timm and NNI, the first proposal, the first model).
Overhead is what remains of each slot's time after that: wall time of the slot, less the seconds its trials trained and
judged. The tail (one slot idle while the other ends the last trial) and the report are shown apart.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import stemlab
from stemlab.engine.quiet import Quiet
from stemlab.records import TrialRecord

STUDY = Path(__file__).parents[1] / "search_spaces" / "conv3x3.yaml"


class Clock(Quiet):
    """Notes when each trial was handed over, and when its record was on the disk."""

    def __init__(self) -> None:
        self.begun: dict[str, float] = {}
        self.ended: dict[str, float] = {}

    def started(self, trial: str, proposal: int, seed: int) -> None:
        """Note the time."""
        self.begun[trial] = time.perf_counter()

    def finished(self, record: TrialRecord, reused: bool) -> None:
        """Note the time."""
        self.ended[record.trial] = time.perf_counter()


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    walls: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for workers in (1, 2):
            walls[workers].append(_round(workers))
    one, two = (statistics.median(walls[workers]) for workers in (1, 2))
    print(f"medians of {rounds}: one worker {one:.1f} s, two workers {two:.1f} s, {one / two:.2f} times sooner")


def _round(workers: int) -> float:
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        before = time.perf_counter()
        study = stemlab.search(
            STUDY,
            Path(folder) / "study",
            changes=[f"search.concurrency={workers}", f"engine.workers={workers}"],
            reporter=clock,
        )
        wall = time.perf_counter() - before
        trained = {record.trial: record.metrics["seconds"] for record in study.trials}
    order = sorted(clock.ended, key=clock.ended.__getitem__)
    first = order[0]
    startup = clock.ended[first] - trained[first] - before
    last, before_last = clock.ended[order[-1]], clock.ended[order[-2]]
    tail = (last - before_last) * (workers - 1)
    slots = (last - before - startup) * workers - tail
    overhead = (slots - sum(trained.values())) / len(trained)
    print(
        f"{workers} workers: wall {wall:.1f} s, start-up {startup:.1f} s, training {sum(trained.values()):.1f} s, "
        f"overhead {overhead:.3f} s a trial, tail {tail:.1f} s, report and end {before + wall - last:.1f} s",
        flush=True,
    )
    return wall


if __name__ == "__main__":
    main()
