"""Packed training against solo runs: ViT of width 64, depth 6, 16 tokens, digits in batches of 32.

    python benchmarks/packed.py updates [rounds [members ...]]
    python benchmarks/packed.py study [trials [epochs [rounds [alone ...]]]]

`updates`: milliseconds of an update of K solo runs, one after the other, and of a pack of K, on one CPU thread (or the
GPU, where there is one); interleaved, medians of the rounds; and the peak memory of the process, before and with the
pack. `study`: seconds of an ablation with `stemlab.ablate`, the engine's own choice and all it takes to start, measure
and report included, against one process that trains each trial in turn, with torch's own number of threads: `hand`, a
plain loop of torch alone, or `loop`, by `run_trial`. Interleaved; the engine measures in the first round, and remembers
in those behind it.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from training import by_hand

STEMS: dict[str, dict[str, Any]] = {
    "patchify": {"patch": 8},
    "conv": {"channels": [16, 32, 64], "kernels": 3, "strides": 2, "norm": "batch", "act": "relu"},
}
STEPS = 3


def study(stem: str, trials: int, epochs: int) -> dict[str, Any]:
    """Return an ablation of the weight decay of one model, at learning rates that are drawn."""
    body = {"dim": 64, "depth": 6, "heads": 2, "class_token": False}
    return {
        "name": "packed",
        "model": {"stem": STEMS[stem], "body": body, "image_size": 32, "classes": 10},
        "data": {"name": "digits"},
        "train": {
            "epochs": epochs,
            "batch_size": 32,
            "lr": {"log_uniform": [1e-4, 1e-2]},
            "weight_decay": {"choice": [0.05, 0.1]},
        },
        "ablate": {"draws": max(2, trials // 2), "seeds": [0]},
    }


def updates(stem: str, members: int, rounds: int) -> dict[str, float]:
    """Time updates in this process."""
    import torch

    from stemlab.builders import build_model
    from stemlab.data.load import load
    from stemlab.matching import match
    from stemlab.running import load_ablation
    from stemlab.train.measure import timed
    from stemlab.train.pace import First
    from stemlab.train.packed import Pack
    from stemlab.train.run import Run

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)
    trial = load_ablation(study(stem, 1, 2)).cells[0].trials[0]
    part = First(load(trial.data, device).train, STEPS * 32)

    def update_ms(run: Run | Pack) -> float:
        run.updates = 0
        return 1000 * timed(run.epoch, device) / STEPS

    def memory() -> float:
        if device == "cuda":
            return torch.cuda.max_memory_allocated() / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    solo = Run(build_model(match(trial.model).model, seed=0).to(device), trial.train, 0, part)
    update_ms(solo)
    found = {"solo_mib": memory()}
    pack = Pack([trial.replace(seed=seed) for seed in range(members)], part, device)
    update_ms(pack)
    pairs = [(members * update_ms(solo), update_ms(pack)) for _ in range(rounds)]
    found["packed_mib"] = memory()
    found["solo"], found["packed"] = (statistics.median(each) for each in zip(*pairs, strict=True))
    found["ratio"] = statistics.median(alone / packed for alone, packed in pairs)
    return found


def one_by_one(stem: str, trials: int, epochs: int) -> None:
    """Train the trials of a study in this process, in turn."""
    from stemlab.running import load_ablation
    from stemlab.train import run_trial

    for cell in load_ablation(study(stem, trials, epochs)).cells:
        run_trial(cell.trials[0], device="cpu")


def accuracy(model: Any, images: Any, labels: Any, batch: int) -> float:
    """Judge a model as one writes it by hand."""
    import torch

    model.eval()
    with torch.no_grad():
        chosen = torch.cat([model(seen).argmax(1) for seen in images.split(batch)])
    return float((chosen == labels).double().mean())


def one_by_one_by_hand(stem: str, trials: int, epochs: int) -> None:
    """Train the trials of a study in turn as one writes it by hand: torch alone, images in memory."""
    import torch

    import stemlab
    from stemlab.data.load import load
    from stemlab.running import load_ablation

    cells = load_ablation(study(stem, trials, epochs)).cells
    data = load(cells[0].trials[0].data)
    train, validation, test = (
        next(iter(part.batches([torch.arange(len(part))]))) for part in (data.train, data.validation, data.test)
    )
    for cell in cells:
        trial, spec = cell.trials[0], cell.trials[0].train
        torch.manual_seed(trial.seed)
        model = stemlab.build(trial.model)
        epoch = by_hand(model, *train, spec.batch_size, spec.lr, spec.weight_decay, epochs, int(spec.warmup_epochs))
        for _ in range(epochs):
            epoch(lambda: None)
            print(accuracy(model, *validation, spec.batch_size))
        print(accuracy(model, *test, spec.batch_size))


def by_the_engine(stem: str, trials: int, epochs: int) -> None:
    """Train them as a study, and say what the engine chose."""
    from stemlab import ablate

    with tempfile.TemporaryDirectory() as folder:
        ablate({**study(stem, trials, epochs), "engine": {"gpus_per_trial": 0}}, folder, resume=True)
        with open(f"{folder}/manifest.json") as file:
            print(json.dumps(json.load(file)["packs"]))


def child(*arguments: object, **environment: str) -> tuple[float, str]:
    """Run this script in a process of its own; return its seconds and the last line that it wrote."""
    before = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, __file__, *map(str, arguments)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return time.perf_counter() - before, (ran.stdout.splitlines() or [""])[-1]


def compare_updates(rounds: int, sizes: list[int]) -> None:
    """Print the table of updates."""
    print("| stem | K | K solo updates, ms | packed, ms | ratio | MiB solo | MiB with the pack |")
    print("|---|---|---|---|---|---|---|")
    for stem in STEMS:
        for members in sizes:
            row = json.loads(child("one", stem, members, rounds)[1])
            print(
                f"| {stem} | {members} | {row['solo']:.0f} | {row['packed']:.0f} | {row['ratio']:.2f} "
                f"| {row['solo_mib']:.0f} | {row['packed_mib']:.0f} |",
                flush=True,
            )


def compare_studies(trials: int, epochs: int, rounds: int, alone: list[str]) -> None:
    """Print the table of studies."""
    print(f"| stem | round |{''.join(f' {kind}, s |' for kind in alone)} engine, s | ratios | engine chose |")
    print("|---" * (5 + len(alone)) + "|")
    with tempfile.TemporaryDirectory() as cache:
        for number in range(rounds):
            for stem in STEMS:
                took = [child(kind, stem, trials, epochs, STEMLAB_CACHE=cache)[0] for kind in alone]
                engine, chose = child("engine", stem, trials, epochs, STEMLAB_CACHE=cache)
                seconds = " | ".join(f"{each:.1f}" for each in [*took, engine])
                ratios = ", ".join(f"{each / engine:.2f}" for each in took)
                print(f"| {stem} | {number} | {seconds} | {ratios} | {chose} |", flush=True)


def main() -> None:
    """Do what the arguments say."""
    kind, *rest = sys.argv[1:] or ["updates"]
    if kind == "updates":
        numbers = [int(value) for value in rest] or [5]
        compare_updates(numbers[0], numbers[1:] or [1, 4, 16, 64])
    elif kind == "study":
        given = [int(value) for value in rest[:3]]
        compare_studies(*given, *(64, 4, 1)[len(given) :], rest[3:] or ["hand", "loop"])
    elif kind == "one":
        print(json.dumps(updates(rest[0], int(rest[1]), int(rest[2]))))
    else:
        work = {"hand": one_by_one_by_hand, "loop": one_by_one, "engine": by_the_engine}[kind]
        work(rest[0], int(rest[1]), int(rest[2]))


if __name__ == "__main__":
    main()
