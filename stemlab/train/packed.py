"""Many trials of one model at once: their parameters are stacked on a leading axis, and one pass trains all of them.

Members share the architecture, the data and the length of the training; each has its own seed, learning rate, weight
decay, momentum and schedule. None sees anything of another: a member that diverges is taken out, and changes nothing.
"""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from ..builders import build_model
from ..data.load import load
from ..data.split import Part
from ..matching import match
from ..records import TrialRecord
from ..spec import TrainSpec, TrialSpec
from ..spec.packs import pack_key
from . import recipe
from .measure import timed
from .pace import First
from .run import Run, autocast, full_batch
from .stacked import Stack
from .stopping import divergence, misjudged
from .trial import outcome, run_trial

_TIMED = 2  # updates at a time
_LONG = 1.0  # seconds

Progress = Callable[[int, dict[str, Any]], None]
"""Gets the place of a member among the trials, and a new row of its curve."""


class Pack:
    """Stacked models on their way through their recipes, one pass an epoch for all."""

    def __init__(self, trials: Sequence[TrialSpec], part: Part, device: str) -> None:
        """Build the models of trials that have a `pack_key` in common."""
        self.spec, self.part = trials[0].train, part
        self.batch = min(self.spec.batch_size, len(part))
        self.steps = len(part) // self.batch
        settled = match(trials[0].model).model
        models = [build_model(settled, seed=trial.seed).to(device) for trial in trials]
        self.model = copy.deepcopy(models[0]).to("meta")
        for module in self.model.modules():
            if hasattr(module, "fused_attn"):  # vmap has no rule for it: the members would take turns
                setattr(module, "fused_attn", False)  # noqa: B010 (no attribute that mypy knows)
        parameters, self.buffers = stack_module_state(models)
        self.stack = Stack(parameters, models[0], [trial.train for trial in trials])
        self.rates = [_rates(trial.train, self.steps) for trial in trials]
        self.orders = [torch.Generator().manual_seed(trial.seed) for trial in trials]
        self.updates = 0

    def __len__(self) -> int:
        return len(self.orders)

    @property
    def lrs(self) -> list[float]:
        """The learning rate of each member's next update."""
        return [rates[self.updates] for rates in self.rates]

    def epoch(self) -> list[float]:
        """Train one pass, the incomplete last batch left out; return each member's mean loss."""
        self.model.train()
        orders = torch.stack([torch.randperm(len(self.part), generator=order) for order in self.orders])
        chosen = orders[:, : self.steps * self.batch].split(self.batch, dim=1)
        total = torch.zeros(len(self), device=self.part.device)
        for images, labels in self.part.batches(places.flatten() for places in chosen):
            losses = self._losses(images.unflatten(0, (len(self), -1)), labels.unflatten(0, (len(self), -1)))
            self.stack.differentiate(losses)
            if self.spec.clip_grad is not None:
                self.stack.clip(self.spec.clip_grad)
            self.stack.step(self.lrs)
            self.updates += 1
            total += losses.detach()
        return [float(loss) for loss in total / self.steps]

    def _losses(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return each member's mean loss on a batch of its own: (members, batch, 3, H, W) and (members, batch)."""
        with autocast(self.spec, images):
            logits = vmap(self._forward)(self.stack.named, self.buffers, images)
        losses = F.cross_entropy(
            logits.float().flatten(0, 1),
            labels.flatten(),
            label_smoothing=self.spec.label_smoothing,
            reduction="none",
        )
        return losses.view_as(labels).mean(dim=1)

    @torch.no_grad()
    def evaluate(self, part: Part) -> list[tuple[float, float]]:
        """Return each member's top-1 accuracy (0..1) and mean cross-entropy on a part of the data."""
        self.model.eval()
        right, loss = (torch.zeros(len(self), dtype=torch.float64, device=part.device) for _ in range(2))
        for images, labels in part.batches(torch.arange(len(part)).split(self.batch)):
            with autocast(self.spec, images):
                logits = vmap(self._forward, in_dims=(0, 0, None))(self.stack.named, self.buffers, images).float()
            right += (logits.argmax(2) == labels).sum(1)
            each = F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(self)), reduction="none")
            loss += each.view(len(self), -1).sum(1)
        return list(zip((right / len(part)).tolist(), (loss / len(part)).tolist(), strict=True))

    def keep(self, members: Sequence[int]) -> None:
        """Go on with these members alone."""
        self.orders = [self.orders[member] for member in members]
        self.rates = [self.rates[member] for member in members]
        self.buffers = {name: buffer[list(members)] for name, buffer in self.buffers.items()}
        self.stack.keep(members)

    def _forward(
        self, parameters: dict[str, torch.Tensor], buffers: dict[str, torch.Tensor], images: torch.Tensor
    ) -> torch.Tensor:
        logits: torch.Tensor = functional_call(self.model, (parameters, buffers), (images,))
        return logits


def _rates(spec: TrainSpec, steps: int) -> list[float]:
    """Return the learning rate of every update of a recipe, and the one behind them, by timm's schedule."""
    optimizer = recipe.optimizer(nn.Linear(1, 1), spec)
    schedule = recipe.schedule(optimizer, spec, steps)
    rates = []
    for update in range(1, spec.epochs * steps + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step_update(update)
    return [*rates, optimizer.param_groups[0]["lr"]]


def run_packed(
    trials: Sequence[TrialSpec], progress: Progress | None = None, device: str | None = None
) -> list[TrialRecord]:
    """Train trials that have a `pack_key` in common and return their records, in the same order.

    Each record is that of `run_trial` but for rounding, and but for its seconds: a member has its share of what the
    pack took. The metric `packed` is how many members there were. A member that diverges is recorded as that, and taken
    out behind the epoch. Where the memory does not hold the pack, it becomes two. ValueError for trials that have
    nothing in common.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    keys = {pack_key(trial) for trial in trials}
    if len(keys) != 1 or None in keys:
        raise ValueError("these trials cannot be packed")
    if len(trials) == 1:
        return [run_trial(trials[0], None if progress is None else lambda row: progress(0, row), device)]
    try:
        with torch.random.fork_rng(devices=[torch.device(device)] if device.startswith("cuda") else []):
            return _Training(trials, progress, device).run()
    except torch.cuda.OutOfMemoryError:
        pass
    # Not in the handler: the error's traceback holds all that has to go.
    gc.collect()
    torch.cuda.empty_cache()
    half = len(trials) // 2
    second = None if progress is None else lambda member, row: progress(half + member, row)
    return [*run_packed(trials[:half], progress, device), *run_packed(trials[half:], second, device)]


def update_seconds(trial: TrialSpec, members: int) -> float:
    """Return how long an update of a trial takes on the CPU for each of so many members; of 1, without packing."""
    part = First(load(trial.data).train, _TIMED * full_batch(trial))
    if members == 1:
        run: Run | Pack = Run(build_model(match(trial.model).model, seed=0), trial.train, 0, part)
    else:
        run = Pack([trial.replace(seed=seed) for seed in range(members)], part, "cpu")
    times = list[float]()
    while len(times) < 2 or sum(times) < _LONG:  # the first steps are slow, and a short time is easily disturbed
        run.updates = 0
        times.append(timed(run.epoch, "cpu"))
    return min(times) / members / _TIMED


class _Training:
    """The training of a pack, and what it comes to for each member."""

    def __init__(self, trials: Sequence[TrialSpec], progress: Progress | None, device: str) -> None:
        self.began = time.perf_counter()
        self.trials, self.progress = list(trials), progress
        self.settled = match(trials[0].model)
        self.data = load(trials[0].data, device)
        self.pack = Pack(trials, self.data.train, device)
        self.alive = list(range(len(trials)))
        self.curves: list[list[dict[str, Any]]] = [[] for _ in trials]
        self.failures: dict[int, str] = {}
        self.seconds = [0.0] * len(trials)
        self.training = [0.0] * len(trials)
        self.images = [0] * len(trials)

    def run(self) -> list[TrialRecord]:
        """Train all members and return their records."""
        for epoch in range(1, self.pack.spec.epochs + 1):
            if not self.alive:
                break
            self._epoch(epoch)
        tested = dict(zip(self.alive, self.pack.evaluate(self.data.test), strict=True)) if self.alive else {}
        self._share_time()
        return [self._record(member, tested.get(member)) for member in range(len(self.trials))]

    def _epoch(self, epoch: int) -> None:
        before = time.perf_counter()
        losses = self.pack.epoch()
        for member in self.alive:
            self.training[member] += (time.perf_counter() - before) / len(self.alive)
            self.images[member] += self.pack.steps * self.pack.batch
        classes = self.trials[0].model.classes
        failed = [divergence(loss, epoch, classes) for loss in losses]
        losses = [loss for loss, why in zip(losses, failed, strict=True) if not why]
        self._drop(failed)
        if not self.alive:
            return
        judged = self.pack.evaluate(self.data.validation)
        for member, lr, train_loss, (top1, loss) in zip(self.alive, self.pack.lrs, losses, judged, strict=True):
            if misjudged(loss, epoch) is None:
                self._add(member, {"epoch": epoch, "lr": lr, "train_loss": train_loss, "loss": loss, "top1": top1})
        self._drop([misjudged(loss, epoch) for _, loss in judged])

    def _add(self, member: int, row: dict[str, Any]) -> None:
        self.curves[member].append(row)
        if self.progress:
            self.progress(member, {**row, "epochs": self.pack.spec.epochs})

    def _drop(self, failed: Sequence[str | None]) -> None:
        """Take out the members that failed, each with its reason."""
        if not any(failed):
            return
        self._share_time()
        self.failures |= {member: why for member, why in zip(self.alive, failed, strict=True) if why}
        kept = [place for place, why in enumerate(failed) if not why]
        self.alive = [self.alive[place] for place in kept]
        if kept:
            self.pack.keep(kept)

    def _share_time(self) -> None:
        """Give each member that is left its share of the time since this was called last."""
        now = time.perf_counter()
        for member in self.alive:
            self.seconds[member] += (now - self.began) / len(self.alive)
        self.began = now

    def _record(self, member: int, tested: tuple[float, float] | None) -> TrialRecord:
        curve, failure = self.curves[member], self.failures.get(member)
        metrics = {} if tested is None else outcome(curve[-1], tested)
        metrics["seconds"] = self.seconds[member]
        metrics["images_per_second"] = self.images[member] / self.training[member]
        metrics["packed"] = len(self.trials)
        return TrialRecord.of(
            self.trials[member],
            "diverged" if failure else "ok",
            metrics=metrics,
            curve=curve,
            error=failure,
            cost=self.settled.cost.as_dict(),
            match=self.settled.as_dict(),
        )
