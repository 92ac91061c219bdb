"""How fast three loops train the same model on the same images: stemlab's, one as timm's script has it, a plain one.

    python benchmarks/training.py [rounds [threads [cases]]]
    python benchmarks/training.py --together [rounds [cases]]

(a) `stemlab.train.run.Run`; (b) timm's `create_dataset` and `create_loader` over a folder of PNG files, its optimizer,
its scheduler, its AverageMeter with `loss.item()`, in the order of its train.py; (c) torch alone, images in memory, as
one writes it by hand. All in fp32 with AdamW, a cosine schedule by step and no augmentation. (a) and (c) have the
images in memory as float tensors; (b) reads them in its own process, without workers.

Each is a process of its own. They have their turns (a, b, c, a, b, c, ...), of an epoch each: images a second and the
time of processors are medians of the rounds, the first left out, and ratios to (c) those of each round, with their 95 %
intervals. `start` is from the beginning of a process to the end of its first step, the median of three processes, and
`memory` the largest resident set. On a busy machine the times of processors, with one thread, are what to look at.

With `--together` all three have their turns in one process, with one thread, where they meet the same caches: that
tells small differences of their steps.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import psutil

Epoch = Callable[[Callable[[], object]], object]

ARMS = {"a": "stemlab's loop", "b": "as timm's script", "c": "by hand"}
SMALL = {"body": {"dim": 64, "depth": 6, "heads": 4}, "image_size": 32, "classes": 10, "stem": {"patch": 4}}
TINY = {**SMALL, "body": {"dim": 16, "depth": 1, "heads": 1}, "stem": {"patch": 16}}
CASES: dict[str, tuple[Any, int, int]] = {  # the model, the batch, the images of an epoch
    "tiny": (TINY, 8, 256),  # where a step is mostly what surrounds the model
    "small": (SMALL, 32, 256),
    "vit_p_1gf": ("vit_p_1gf", 4, 8),
    "vit_c_1gf": ("vit_c_1gf", 4, 8),
}
STARTS = 3
RECIPE: dict[str, Any] = {"lr": 1e-3, "weight_decay": 0.05, "epochs": 100, "warmup_epochs": 1}


def main() -> None:
    rounds, threads, cases = (*sys.argv[1:], *("12", "2", ",".join(CASES))[len(sys.argv) - 1 :])
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {threads} threads, {rounds} rounds\n")
    print("| | images/s | CPU ms an image | over (c) | CPU over (c) | start | CPU of it | memory |")
    print("|---" * 8 + "|")
    for case in cases.split(","):
        with tempfile.TemporaryDirectory() as folder:
            _make_images(Path(folder), case)
            started: dict[str, list[_Process]] = {arm: [] for arm in ARMS}
            for _ in range(STARTS):
                for arm, loops in started.items():
                    if loops:
                        loops[-1].end()
                    loops.append(_Process(arm, case, folder, threads))
            turns = [{arm: loops[-1].turn() for arm, loops in started.items()} for _ in range(1 + int(rounds))][1:]
            for arm, loops in started.items():
                loops[-1].end()
                cells = _cells(arm, CASES[case][2], turns, [loop.first for loop in loops])
                print(f"| {case}: ({arm}) {ARMS[arm]} | {cells} |", flush=True)


def _cells(arm: str, images: int, turns: list[dict[str, dict[str, float]]], starts: list[dict[str, float]]) -> str:
    from stemlab.engine.measuring import Range

    over = [Range.of([turn[arm][name] / turn["c"][name] for turn in turns]) for name in ("seconds", "processor")]
    return " | ".join(
        [
            f"{images / median(turn[arm]['seconds'] for turn in turns):.1f}",
            f"{1000 * median(turn[arm]['processor'] for turn in turns) / images:.2f}",
            *("1" if arm == "c" else f"{one.median:.3f} ({one.low:.3f} to {one.high:.3f})" for one in over),
            *(f"{median(first[name] for first in starts):.1f} s" for name in ("start", "start_processor")),
            f"{turns[-1][arm]['peak'] / 1e6:.0f} MB",
        ]
    )


class _Process:
    """One loop in a process of its own."""

    def __init__(self, arm: str, case: str, folder: str, threads: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, __file__, "--serve", arm, case, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        )
        self.first = self.turn()

    def end(self) -> None:
        self.popen.kill()
        self.popen.communicate()

    def turn(self) -> dict[str, float]:
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()
        found: dict[str, float] = json.loads(self.popen.stdout.readline())
        return found


def _make_images(folder: Path, case: str) -> None:
    """Write images of noise as PNG files, a folder for each class, and the same as one file of tensors."""
    import numpy as np
    import torch
    from PIL import Image

    import stemlab

    spec, _, number = CASES[case]
    size, classes = stemlab.load(spec).image_size, 10
    drawn = np.random.default_rng(0).integers(0, 256, size=(number, 8, 8, 3), dtype=np.uint8)
    pictures = [Image.fromarray(one).resize((size, size), Image.Resampling.BICUBIC) for one in drawn]
    for index, picture in enumerate(pictures):
        place = folder / "images" / str(index % classes)
        place.mkdir(parents=True, exist_ok=True)
        picture.save(place / f"{index}.png")
    images = torch.from_numpy(np.stack([np.asarray(one) for one in pictures])).permute(0, 3, 1, 2).float() / 255
    torch.save((images.contiguous() - 0.5) / 0.5, folder / "images.pt")
    torch.save(torch.arange(number) % classes, folder / "labels.pt")


def _serve(arm: str, case: str, folder: Path) -> None:
    """Answer each line with what an epoch took, and when the first step of all was done."""
    epoch = _loop(arm, case, folder)
    born, first = psutil.Process().create_time(), list[float]()
    for _ in sys.stdin:
        before, worked = time.perf_counter(), time.process_time()
        epoch(lambda: None if first else first.extend((time.time() - born, time.process_time())))
        found = {"seconds": time.perf_counter() - before, "processor": time.process_time() - worked, "peak": _peak()}
        print(json.dumps({**found, "start": first[0], "start_processor": first[1]}), flush=True)


def _together(rounds: int, cases: str) -> None:
    """Print what a step of each loop takes of a processor, all in this process."""
    import torch

    from stemlab.engine.measuring import Range

    torch.set_num_threads(1)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, one thread, {rounds} rounds\n")
    print("| | CPU ms a step | CPU over (c) |\n|---|---|---|")
    for case in cases.split(","):
        with tempfile.TemporaryDirectory() as folder:
            _make_images(Path(folder), case)
            epochs = {arm: _loop(arm, case, Path(folder)) for arm in ARMS}
            turns = [{arm: _processor_ms(epoch) for arm, epoch in epochs.items()} for _ in range(1 + rounds)][1:]
        _, batch, images = CASES[case]
        for arm, name in ARMS.items():
            over = Range.of([turn[arm] / turn["c"] for turn in turns])
            shown = "1" if arm == "c" else f"{over.median:.3f} ({over.low:.3f} to {over.high:.3f})"
            step = median(turn[arm] for turn in turns) * batch / images
            print(f"| {case}: ({arm}) {name} | {step:.2f} | {shown} |", flush=True)


def _processor_ms(epoch: Epoch) -> float:
    before = time.process_time()
    epoch(lambda: None)
    return 1000 * (time.process_time() - before)


def _loop(arm: str, case: str, folder: Path) -> Epoch:
    return {"a": _stemlab, "b": _timm, "c": _by_hand}[arm](case, folder)


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def _model(case: str) -> Any:
    import stemlab

    return stemlab.build(CASES[case][0], seed=0)


# Each returns a function that trains for an epoch and calls what it is given behind a step.


def _stemlab(case: str, folder: Path) -> Epoch:
    import torch

    from stemlab.data.split import MemoryPart
    from stemlab.spec import TrainSpec
    from stemlab.train.run import Run

    part = MemoryPart(torch.load(folder / "images.pt"), torch.load(folder / "labels.pt"))
    return Run(_model(case), TrainSpec(batch_size=CASES[case][1], **RECIPE), 0, part).epoch


def _timm(case: str, folder: Path) -> Epoch:
    import torch
    from timm.data import create_dataset, create_loader
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import AverageMeter

    model, batch = _model(case), CASES[case][1]
    data = create_dataset("", root=str(folder / "images"), is_training=True, batch_size=batch)
    loader = create_loader(
        data, input_size=(3, *model.patch_embed.img_size), batch_size=batch, is_training=True, no_aug=True,
        use_prefetcher=False, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", num_workers=0,
        persistent_workers=False, device=torch.device("cpu"),
    )  # fmt: skip
    optimizer = create_optimizer_v2(model, opt="adamw", lr=RECIPE["lr"], weight_decay=RECIPE["weight_decay"])
    schedule, _ = create_scheduler_v2(
        optimizer, "cosine", num_epochs=RECIPE["epochs"], warmup_epochs=RECIPE["warmup_epochs"], warmup_lr=1e-6,
        step_on_epochs=False, updates_per_epoch=len(loader),
    )  # fmt: skip
    loss_of, updates = torch.nn.CrossEntropyLoss(), itertools.count(1)

    def epoch(after_step: Callable[[], object]) -> None:
        model.train()
        seen = AverageMeter()
        for images, labels in loader:
            optimizer.zero_grad()
            loss = loss_of(model(images), labels)
            loss.backward()
            optimizer.step()
            seen.update(loss.item(), images.size(0))
            schedule.step_update(num_updates=next(updates), metric=seen.avg)
            after_step()

    return epoch


def _by_hand(case: str, folder: Path) -> Epoch:
    import torch

    images, labels = torch.load(folder / "images.pt"), torch.load(folder / "labels.pt")
    return by_hand(_model(case), images, labels, CASES[case][1], **RECIPE)


def by_hand(
    model: Any, images: Any, labels: Any, batch: int, lr: float, weight_decay: float, epochs: int, warmup_epochs: int
) -> Epoch:
    """Return an epoch of a loop as one writes it by hand: torch alone, on images in memory."""
    import torch
    from torch.nn import functional as F
    from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

    steps = len(labels) // batch
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr)
    warm, rest = warmup_epochs * steps, (epochs - warmup_epochs) * steps
    parts = [LinearLR(optimizer, 1 / warm, total_iters=warm), CosineAnnealingLR(optimizer, rest)]
    schedule = SequentialLR(optimizer, parts, [warm])

    def epoch(after_step: Callable[[], object]) -> None:
        model.train()
        total = 0.0
        for chosen in torch.randperm(len(labels))[: steps * batch].split(batch):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images[chosen]), labels[chosen])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
            after_step()

    return epoch


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        _serve(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    elif sys.argv[1:2] == ["--together"]:
        given = (*sys.argv[2:], *("20", ",".join(CASES))[len(sys.argv) - 2 :])
        _together(int(given[0]), given[1])
    else:
        main()
