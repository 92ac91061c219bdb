"""How fast the parts without torch are: start-up of the command line, and 100,000 specs drawn, costed, checked.

python benchmarks/cost_speed.py
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from stemlab import space
from stemlab.errors import InfeasibleError
from stemlab.running import load_search

STUDY = Path(__file__).parents[1] / "search_spaces" / "conv3x3.yaml"
SPECS = 100_000
# Wider than the shipped space, so that few of the specs repeat: 1e9 stems of four layers.
WIDE = [
    "model.stem={channels: [{int: [4, 32]}, {int: [8, 64]}, {int: [8, 96]}, {int: [8, 96]}], "
    "kernels: {choice: [3, 5]}, strides: {choice: [[2, 2, 2, 1], [2, 2, 1, 2], [2, 1, 2, 2], [1, 2, 2, 2]]}, "
    "norm: [{choice: [batch, none]}, {choice: [batch, none]}, {choice: [batch, none]}, batch], "
    "act: {choice: [relu, scaled_relu, gelu]}}"
]


def main() -> None:
    command = str(Path(sys.executable).with_name("stemlab"))
    for arguments in (["--help"], ["cost", "vit_c_4gf"], ["zoo", "--json"]):
        print(f"stemlab {' '.join(arguments):<16} median {_median_seconds([command, *arguments]):.3f} s of 15 runs")
    for name, changes in (("the shipped space", []), ("a space of 1e9 stems", WIDE)):
        for processes in (1, os.cpu_count() or 1):
            before = time.perf_counter()
            with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
                shares = [(changes, seed, SPECS // processes) for seed in range(processes)]
                feasible = sum(pool.map(_check, shares))
            seconds = time.perf_counter() - before
            print(f"{SPECS:,} specs of {name}, {processes} processes: {seconds:.2f} s, {feasible:,} feasible")


def _median_seconds(command: list[str]) -> float:
    times = []
    for _ in range(15):
        before = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - before)
    return statistics.median(times)


def _check(share: tuple[list[str], int, int]) -> int:
    """Draw specs and make candidates of them: fill, validate, trace, match, cost, check constraints."""
    changes, seed, number = share
    candidates = load_search(STUDY, changes)
    rng, feasible = random.Random(seed), 0
    for _ in range(number):
        try:
            candidates.make(space.draw(candidates.holes, rng))
            feasible += 1
        except InfeasibleError:
            pass
    return feasible


if __name__ == "__main__":
    main()
