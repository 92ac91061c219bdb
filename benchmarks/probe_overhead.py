"""What each probe costs: the time that a trial spends in it, on one CPU thread.

    python benchmarks/probe_overhead.py [rounds]

The trial is like those of the shipped search: a ViT of width 96 and depth 6 with three convolutions for a stem, digits
in batches of 64. Probes are timed where the loop calls them: a per cent or so of a run is less than two runs differ by.
Those of the steps are shown as a share of the rest of two epochs (CPU time); those of the trained model in seconds.
Each round runs every probe in turn; medians of the rounds.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import torch

from stemlab.probes import Observer
from stemlab.spec import TrialSpec
from stemlab.train import run_trial, trial

MODEL = {
    "stem": {"channels": [16, 32, 64], "kernels": 3, "strides": 2, "norm": "batch", "act": "relu"},
    "body": {"dim": 96, "depth": 6, "heads": 3, "class_token": False},
    "image_size": 32,
    "classes": 10,
}
OF_STEPS = ("gradients", "updates", "spikes")
OF_THE_MODEL = ("tokens", "attention", "cka", "hessian")


class Timed(Observer):
    """An observer that knows how much CPU time it has taken."""

    steps_took = behind_took = 0.0

    def before_step(self, loss: torch.Tensor) -> None:
        """Take the time."""
        before = time.process_time()
        super().before_step(loss)
        Timed.steps_took += time.process_time() - before

    def after_step(self) -> None:
        """Take the time."""
        before = time.process_time()
        super().after_step()
        Timed.steps_took += time.process_time() - before

    def end_epoch(self) -> dict[str, float | None]:
        """Take the time."""
        before = time.process_time()
        row = super().end_epoch()
        Timed.steps_took += time.process_time() - before
        return row

    def finish(self, failure: str | None) -> dict[str, Any]:
        """Take the time."""
        before = time.process_time()
        found = super().finish(failure)
        Timed.behind_took = time.process_time() - before
        return found


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    torch.set_num_threads(1)
    trial.Observer = Timed
    _run(("spikes",), 1)  # torch's first steps are slow
    shares: dict[str, list[float]] = {name: [] for name in OF_STEPS}
    seconds: dict[str, list[float]] = {name: [] for name in OF_THE_MODEL}
    epochs = []
    for _ in range(rounds):
        for name in OF_STEPS:
            in_probe, _, rest = _run((name,), 2)
            shares[name].append(in_probe / rest)
            epochs.append(rest / 2)
        for name in OF_THE_MODEL:
            seconds[name].append(_run((name,), 1)[1])
    print(f"an epoch: {statistics.median(epochs):.2f} s of CPU")
    for name, found in shares.items():
        each = ", ".join(f"{share:.2%}" for share in found)
        print(f"{name:10} {statistics.median(found):7.2%}   each round: {each}")
    for name, found in seconds.items():
        print(f"{name:10} {statistics.median(found):6.2f} s   each round: {', '.join(f'{s:.2f}' for s in found)}")


def _run(probes: tuple[str, ...], epochs: int) -> tuple[float, float, float]:
    """Return the CPU seconds of a trial: in the probes at its steps, in those behind it, and all the rest."""
    document = {"model": MODEL, "data": {"name": "digits"}, "seed": 0, "probes": dict.fromkeys(probes, True)}
    spec = TrialSpec.model_validate({**document, "train": {"epochs": epochs, "warmup_epochs": 0}})
    Timed.steps_took = Timed.behind_took = 0.0
    before = time.process_time()
    run_trial(spec, device="cpu")
    rest = time.process_time() - before - Timed.steps_took - Timed.behind_took
    return Timed.steps_took, Timed.behind_took, rest


if __name__ == "__main__":
    main()
