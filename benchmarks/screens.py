"""How well scores of untrained models rank what training made of them, over all points of small spaces.

    python benchmarks/screens.py [FOLDER]

FOLDER (tests/facts/enumerated unless given) has spaces (NAME.yaml) whose points are all trained (NAME.csv). Every
screen scores every point; beside them stand baselines that take no model at all. What is ranked is top1 on the
validation part behind the last epoch, of one seed; a point that diverged is worse than all others.
"""

from __future__ import annotations

import csv
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from stemlab import space
from stemlab.analysis.screening import correlations
from stemlab.candidate import Candidate
from stemlab.errors import InfeasibleError
from stemlab.running import load_search
from stemlab.train import screens

FOLDER = Path(__file__).parents[1] / "tests" / "facts" / "enumerated"

BASELINES: dict[str, Callable[[Candidate], float]] = {
    "parameters": lambda candidate: candidate.matched.cost.params,
    "flops": lambda candidate: candidate.matched.cost.flops,
    "flops of the stem": lambda candidate: candidate.matched.cost.stem.flops,
    "layers of the stem": lambda candidate: len(candidate.model.stem.layers),
}


def main() -> None:
    folder = Path(sys.argv[1]) if sys.argv[1:] else FOLDER
    print("| space | score | Spearman | Kendall | a score takes |\n|---|---|---|---|---|")
    for file in sorted(folder.glob("*.yaml")):
        _show(file.stem, *_trained(file))


def _trained(file: Path) -> tuple[list[Candidate], list[float]]:
    """Return the feasible points of a space, and top1 of each."""
    candidates = load_search(file)
    points = []
    for point in space.enumerate_points(candidates.holes):
        try:
            points.append(candidates.make(point))
        except InfeasibleError:
            continue
    rows = list(csv.DictReader(file.with_suffix(".csv").read_text().splitlines()))
    last = f"top1 {points[0].train.epochs}"
    return points[: len(rows)], [float(row[last] or 0) for row in rows]


def _show(name: str, points: list[Candidate], values: list[float]) -> None:
    what = f"{name} ({len(points)} points)"
    for screen in screens.SCREENS:
        seconds = []
        for candidate in points[:5]:
            before = time.perf_counter()
            screens.score(candidate.trials[0], screen)  # type: ignore[arg-type]
            seconds.append(time.perf_counter() - before)
        found: dict[str, float | None] = {}  # of models: those that differ in the recipe alone share theirs
        for candidate in points:
            if candidate.model.digest not in found:
                found[candidate.model.digest] = screens.score(candidate.trials[0], screen)  # type: ignore[arg-type]
        scores = [found[candidate.model.digest] for candidate in points]
        worst = min((score for score in scores if score is not None), default=0.0) - 1
        known = [worst if score is None else score for score in scores]
        _row(what, f"`{screen}`", known, values, f"{median(seconds):.2f} s")
    for baseline, of in BASELINES.items():
        _row(what, baseline, [of(candidate) for candidate in points], values, "")


def _row(what: str, score: str, scores: list[float], values: list[float], takes: str) -> None:
    found = correlations(scores, values)
    print(f"| {what} | {score} | {_shown(found, 'spearman')} | {_shown(found, 'kendall')} | {takes} |", flush=True)


def _shown(found: dict[str, float], name: str) -> str:
    value, low, high = (found[key] for key in (name, f"{name}_low", f"{name}_high"))
    return "all equal" if math.isnan(value) else f"{value:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
