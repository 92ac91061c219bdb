"""What each probe costs: the same trial without probes and with each of them, in turn, on one CPU thread.

    python benchmarks/probe_overhead.py [rounds] [epochs]

The trial is one of the shipped search: a ViT of width 96 and depth 6 with three convolutions for a stem, 10 epochs of
digits in batches of 64. Each round runs it without probes, with each probe alone and with all, in an order that rotates
from round to round; a ratio is to the run without probes of the same round, and the medians of the ratios are shown.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch

from stemlab.spec import ProbeSpec, TrialSpec
from stemlab.train import run_trial

MODEL = {
    "stem": {"channels": [16, 32, 64], "kernels": 3, "strides": 2, "norm": "batch", "act": "relu"},
    "body": {"dim": 96, "depth": 6, "heads": 3, "class_token": False},
    "image_size": 32,
    "classes": 10,
}
NAMES = [name for name in ProbeSpec.model_fields if name != "images"]
VARIANTS = {"off": {}, **{name: {name: True} for name in NAMES}, "all": dict.fromkeys(NAMES, True)}


def main() -> None:
    rounds, epochs = (int(sys.argv[i]) if len(sys.argv) > i else default for i, default in ((1, 5), (2, 10)))
    torch.set_num_threads(1)
    _run({}, 1)  # torch's first steps are slow
    training: dict[str, list[float]] = {name: [] for name in VARIANTS}
    behind: dict[str, list[float]] = {name: [] for name in VARIANTS}
    names = list(VARIANTS)
    for number in range(rounds):
        turn = number % len(names)
        seconds = {name: _run(VARIANTS[name], epochs) for name in names[turn:] + names[:turn]}
        for name, (trained, measured) in seconds.items():
            training[name].append(trained / seconds["off"][0])
            behind[name].append(measured - seconds["off"][1])
        print(f"round {number + 1}: off {seconds['off'][0]:.1f} s", flush=True)
    print("probe      training  behind it")
    for name in names[1:]:
        print(
            f"{name:10} {statistics.median(training[name]) - 1:+8.1%} {statistics.median(behind[name]):8.2f} s   "
            f"training of each round: {', '.join(f'{ratio - 1:+.1%}' for ratio in training[name])}"
        )


def _run(probes: dict[str, bool], epochs: int) -> tuple[float, float]:
    """Return the seconds of training and judging, and those of all the rest: building the model, and the probes."""
    train = {"epochs": epochs, "warmup_epochs": min(1, epochs - 1)}
    trial = {"model": MODEL, "data": {"name": "digits"}, "train": train, "seed": 0, "probes": probes}
    spec = TrialSpec.model_validate(trial)
    before = time.perf_counter()
    record = run_trial(spec, device="cpu")
    wall = time.perf_counter() - before
    return record.metrics["seconds"], wall - record.metrics["seconds"]


if __name__ == "__main__":
    main()
