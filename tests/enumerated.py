"""Searches replayed over the small spaces of which every point was trained once (tools/enumerate_spaces.py).

python tests/enumerated.py prints the table of docs/search.md.
"""

from __future__ import annotations

import copy
import csv
import functools
import math
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from stemlab.candidate import Candidate, Candidates
from stemlab.engine.halving import Brackets
from stemlab.engine.proposer import TunerProposer
from stemlab.engine.searching import Progress, Proposals
from stemlab.errors import InfeasibleError
from stemlab.records import TrialRecord
from stemlab.running import load_search
from stemlab.spec import SearchSettings

FOLDER = Path(__file__).parent / "facts" / "enumerated"
SPACES = ("recipe", "shape", "stack")
TRIALS = 40
SEEDS = 20
HOWS = {
    "random": {"tuner": "random", "trials": 10**6},  # until all are tried
    "tpe": {"tuner": "tpe"},
    "evolution": {"tuner": "evolution", "tuner_options": {"population_size": 8}},
    "halving": {"tuner": "random", "trials": 10**6, "fidelity": {"kind": "halving", "min_epochs": 3}},
    "halving from one epoch": {"tuner": "random", "trials": 10**6, "fidelity": {"kind": "halving"}},
    "hyperband": {"tuner": "random", "trials": 10**6, "fidelity": {"kind": "hyperband"}},
}


class Known(Candidates):
    """The points of a space, each made once."""

    made: dict

    def make(self, point):
        key = tuple(sorted(point.items()))
        if key not in self.made:
            try:
                self.made[key] = super().make(point)
            except InfeasibleError as error:
                self.made[key] = error
        found = self.made[key]
        if isinstance(found, Candidate):
            return found
        raise found


@dataclass
class Table:
    """A space, and of each trial's digest its learning curve; `top` are the best twentieth by top1 after the last."""

    candidates: Known
    curves: dict[str, list[dict]]
    top: set[str]
    epochs: int


@functools.cache
def table(name: str) -> Table:
    candidates = load_search(FOLDER / f"{name}.yaml")
    candidates.__class__, candidates.made = Known, {}
    curves, finals, epochs = {}, {}, 0
    with (FOLDER / f"{name}.csv").open() as file:
        for row in csv.DictReader(file):
            measured = {key: float(value) for key, value in row.items() if value and key.startswith(("top1 ", "loss "))}
            point = {key: int(value) for key, value in row.items() if value and key not in measured}
            candidate = candidates.make(point)
            epochs = candidate.train.epochs
            curve = [
                {"epoch": epoch, "top1": measured[f"top1 {epoch}"], "loss": measured[f"loss {epoch}"]}
                for epoch in range(1, epochs + 1)
                if f"top1 {epoch}" in measured
            ]
            curves[candidate.identity] = curve
            finals[candidate.identity] = curve[-1]["top1"] if len(curve) == epochs else -math.inf
    least = sorted(finals.values(), reverse=True)[math.ceil(len(finals) / 20) - 1]
    return Table(candidates, curves, {digest for digest, value in finals.items() if value >= least}, epochs)


def replay(name: str, seed: int, **search) -> tuple[float, float]:
    """Return after how many proposals one of the top was proposed, and after how many epochs one was trained in full.

    Infinite where the search ends without one.
    """
    known = table(name)
    wanted = {"trials": TRIALS, "tuner_seed": seed, **search}
    settings = SearchSettings(**{**wanted, "trials": min(wanted["trials"], len(known.curves))})
    candidates = copy.copy(known.candidates)
    candidates.study = candidates.study.replace(search=settings)
    progress = Progress(settings, TunerProposer(candidates), lambda text: None)
    halves = settings.fidelity is not None
    source = Brackets(progress, settings.fidelity, known.epochs) if halves else Proposals(progress)
    proposals = epochs = math.inf
    spent, trained = 0, {}
    while (job := source.next()) is not None:
        digest = job.trial.digest
        curve = known.curves[digest][: job.until]
        spent += len(curve) - trained.get(digest, 0)
        trained[digest] = len(curve)
        if digest in known.top:
            proposals = min(proposals, job.proposal + 1)
            if len(curve) == known.epochs:
                epochs = min(epochs, spent)
        source.done(job, record(job, curve, known.epochs))
    return proposals, epochs


def record(job, curve, epochs) -> TrialRecord:
    if len(curve) < (job.until or epochs):
        return TrialRecord(job.trial.digest, "diverged", {}, {}, {}, 0, curve=curve, until=job.until)
    metrics = {"top1": curve[-1]["top1"], "loss": curve[-1]["loss"]}
    status = "pruned" if job.until else "ok"
    return TrialRecord(job.trial.digest, status, {}, {}, {}, 0, metrics=metrics, curve=curve, until=job.until)


@functools.cache
def over_seeds(name: str, how: str) -> tuple[list[float], list[float]]:
    """Return replay's two numbers for every seed, searched as HOWS says."""
    both = [replay(name, seed, **HOWS[how]) for seed in range(SEEDS)]
    return [proposals for proposals, _ in both], [epochs for _, epochs in both]


def main() -> None:
    from scipy.stats import mannwhitneyu

    for name in SPACES:
        known = table(name)
        print(f"{name}: {len(known.curves)} points, {len(known.top)} at the top")
        base = over_seeds(name, "random")
        for how in sys.argv[1:] or HOWS:
            found = over_seeds(name, how)
            cells = []
            for mine, theirs in zip(found, base, strict=True):
                test = mannwhitneyu(mine, theirs, alternative="less").pvalue
                finite = list(filter(math.isfinite, mine))
                mean = statistics.fmean(finite) if len(finite) == len(mine) else math.inf
                cells.append(f"{statistics.median(mine):6.1f} mean {mean:6.1f} (p {test:.3f}, found {len(finite)})")
            print(f"  {how:22} proposals {cells[0]}  epochs {cells[1]}", flush=True)


if __name__ == "__main__":
    main()
