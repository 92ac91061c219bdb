"""Train every point of the small spaces in tests/facts/enumerated/, from which tests replay searches.

python tools/enumerate_spaces.py [NAME ...]

Of each NAME.yaml it writes NAME.csv: one row a feasible point, in the order in which stemlab enumerates them, with how
each hole is filled (the option's index, nothing where the hole is closed) and top1 and loss after each epoch (nothing
once it diverged). It goes on where it was stopped. Seven minutes of one core train all.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from stemlab import space
from stemlab.candidate import Candidate
from stemlab.errors import InfeasibleError
from stemlab.running import load_search
from stemlab.train import run_trial

FOLDER = Path(__file__).parents[1] / "tests" / "facts" / "enumerated"


def main() -> None:
    """Enumerate the spaces named on the command line, or all."""
    torch.set_num_threads(1)  # the same sums on every machine's number of cores
    for path in sorted(FOLDER.glob("*.yaml")):
        if not sys.argv[1:] or path.stem in sys.argv[1:]:
            enumerate_space(path)


def enumerate_space(path: Path) -> None:
    """Train what is not yet in the table of a space."""
    points = list(feasible(path))
    epochs = range(1, points[0].train.epochs + 1)
    holes = sorted({name for candidate in points for name in candidate.point})
    header = [*holes, *(f"{metric} {epoch}" for metric in ("top1", "loss") for epoch in epochs)]
    table = path.with_suffix(".csv")
    done = max(0, len(table.read_text().splitlines()) - 1) if table.exists() else 0
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, header, lineterminator="\n")
        if not table.stat().st_size:
            writer.writeheader()
        for number, candidate in enumerate(points[done:], start=done + 1):
            curve = run_trial(candidate.trials[0], device="cpu").curve
            values = {f"{metric} {row['epoch']}": f"{row[metric]:.4f}" for row in curve for metric in ("top1", "loss")}
            writer.writerow({**candidate.point, **values})
            file.flush()
            print(f"{path.stem}: {number} of {len(points)}", flush=True)


def feasible(path: Path) -> Iterator[Candidate]:
    """Yield the feasible points of a space."""
    candidates = load_search(path)
    for point in space.enumerate_points(candidates.holes):
        try:
            yield candidates.make(point)
        except InfeasibleError:
            continue


if __name__ == "__main__":
    main()
