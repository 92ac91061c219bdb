"""What each probe costs: the same trial with it and without, in turn, on one CPU thread.

    python benchmarks/probe_overhead.py [rounds]

The trial is like those of the shipped search: a ViT of width 96 and depth 6 with three convolutions for a stem, digits
in batches of 64. Probes of the steps: the CPU time of two epochs with and without, one straight after the other and in
an order that changes from round to round; the median of the ratios. Probes of the trained model: the median of the
seconds that a trial takes beyond what it trains and judges, less those of a trial without.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch

from stemlab.spec import TrialSpec
from stemlab.train import run_trial

MODEL = {
    "stem": {"channels": [16, 32, 64], "kernels": 3, "strides": 2, "norm": "batch", "act": "relu"},
    "body": {"dim": 96, "depth": 6, "heads": 3, "class_token": False},
    "image_size": 32,
    "classes": 10,
}
OF_STEPS = ("gradients", "updates", "spikes")
OF_THE_MODEL = ("tokens", "attention", "cka", "hessian")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    torch.set_num_threads(1)
    _run((), 1)  # torch's first steps are slow
    variants = {**{name: (name,) for name in OF_STEPS}, "all three": OF_STEPS}
    ratios: dict[str, list[float]] = {name: [] for name in variants}
    behind: dict[str, list[float]] = {name: [] for name in OF_THE_MODEL}
    trained = []
    for number in range(rounds):
        for name, probes in variants.items():
            pair = ((), probes) if number % 2 else (probes, ())
            seconds = {probed: _run(probed, 2)[0] for probed in pair}
            ratios[name].append(seconds[probes] / seconds[()])
            trained.append(seconds[()] / 2)
        nothing = _run((), 1)[1]
        for name in OF_THE_MODEL:
            behind[name].append(_run((name,), 1)[1] - nothing)
    print(f"an epoch without probes: {statistics.median(trained):.2f} s of CPU")
    for name, found in ratios.items():
        each = ", ".join(f"{ratio - 1:+.1%}" for ratio in found)
        print(f"{name:10} {statistics.median(found) - 1:+7.1%}   each round: {each}")
    for name, found in behind.items():
        print(f"{name:10} {statistics.median(found):6.2f} s   each round: {', '.join(f'{s:.2f}' for s in found)}")


def _run(probes: tuple[str, ...], epochs: int) -> tuple[float, float]:
    """Return the CPU seconds of a trial, and the seconds that it took beyond training and judging."""
    trial = {"model": MODEL, "data": {"name": "digits"}, "seed": 0, "probes": dict.fromkeys(probes, True)}
    spec = TrialSpec.model_validate({**trial, "train": {"epochs": epochs, "warmup_epochs": 0}})
    wall, cpu = time.perf_counter(), time.process_time()
    record = run_trial(spec, device="cpu")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return cpu, wall - record.metrics["seconds"]


if __name__ == "__main__":
    main()
