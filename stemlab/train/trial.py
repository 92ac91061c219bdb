"""Train and judge one model: the loop of a trial."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..builders import build_model
from ..data import Part, load_digits
from ..matching import match
from ..probes import Observer
from ..records import TrialRecord
from ..spec import Floor, TrainSpec, TrialSpec
from . import recipe

Progress = Callable[[dict[str, Any]], None]

EXPLODED = 10.0
"""A run whose mean loss over an epoch exceeds this many times that of guessing has exploded."""


def run_trial(
    trial: TrialSpec,
    progress: Progress | None = None,
    device: str | None = None,
    *,
    until: int | None = None,
    floor: Floor | None = None,
    keep: Path | None = None,
) -> TrialRecord:
    """Train the trial's model and return its record; a run that diverges is a result like any other.

    Everything random follows from `trial.seed`: the same trial gives the same numbers on the same machine with the
    same number of threads. `progress` gets each row of the curve, and how many `epochs` there will be.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    data, spec = load_digits(trial.data, device), trial.train
    settled = match(trial.model)
    model = build_model(settled.model, seed=trial.seed).to(device)
    observer = Observer(trial, model, data) if trial.probes else None
    run = Run(model, spec, trial.seed, data.train, observer)

    started = time.perf_counter()
    curve: list[dict[str, Any]] = []
    failure = None
    training = 0.0
    for epoch in range(1, spec.epochs + 1):
        before = time.perf_counter()
        train_loss = run.epoch()
        training += time.perf_counter() - before
        measured = observer.end_epoch() if observer else {}
        failure = _divergence(train_loss, epoch, trial.model.classes)
        if failure:
            break
        top1, loss = evaluate(model, data.validation, spec)
        if not math.isfinite(loss):
            failure = f"the validation loss became {loss} in epoch {epoch}"
            break
        curve.append({"epoch": epoch, "lr": run.lr, "train_loss": train_loss, "loss": loss, "top1": top1, **measured})
        if progress:
            progress({**curve[-1], "epochs": spec.epochs})

    metrics: dict[str, float] = {}
    if not failure:
        test_top1, test_loss = evaluate(model, data.test, spec)
        last = curve[-1]
        metrics = {
            "top1": last["top1"],
            "top1_error": 1 - last["top1"],
            "loss": last["loss"],
            "test_top1": test_top1,
        }
        if math.isfinite(test_loss):
            metrics["test_loss"] = test_loss
    metrics["seconds"] = time.perf_counter() - started
    metrics["images_per_second"] = run.images / training if training else 0.0
    return TrialRecord.of(
        trial,
        "diverged" if failure else "ok",
        metrics=metrics,
        cost=settled.cost.as_dict(),
        match=settled.as_dict(),
        curve=curve,
        error=failure,
        probes=observer.finish(failure) if observer else {},
    )


def _divergence(loss: float, epoch: int, classes: int) -> str | None:
    if not math.isfinite(loss):
        return f"the training loss became {loss} in epoch {epoch}"
    if loss > EXPLODED * math.log(max(2, classes)):
        return f"the training loss exploded to {loss:.3g} in epoch {epoch}"
    return None


class Run:
    """A model on its way: optimizer, schedule and the order of the images."""

    def __init__(self, model: nn.Module, spec: TrainSpec, seed: int, part: Part, observer: Observer | None) -> None:
        self.model, self.spec, self.part, self.observer = model, spec, part, observer
        self.batch = min(spec.batch_size, len(part))
        self.steps = len(part) // self.batch
        self.optimizer = recipe.optimizer(model, spec)
        self.schedule = recipe.schedule(self.optimizer, spec, self.steps)
        self.order = torch.Generator().manual_seed(seed)
        self.updates = self.images = 0

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return float(self.optimizer.param_groups[0]["lr"])

    def epoch(self) -> float:
        """Train one pass, the incomplete last batch left out; return the mean loss."""
        self.model.train()
        order = torch.randperm(len(self.part), generator=self.order).to(self.part.labels.device)
        total = torch.zeros((), device=self.part.labels.device)
        for chosen in order[: self.steps * self.batch].split(self.batch):
            with _autocast(self.spec, chosen):
                logits = self.model(self.part.images[chosen])
                loss = F.cross_entropy(
                    logits.float(), self.part.labels[chosen], label_smoothing=self.spec.label_smoothing
                )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self.observer:
                self.observer.before_step(loss)
            if self.spec.clip_grad is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.clip_grad)
            self.optimizer.step()
            if self.observer:
                self.observer.after_step()
            self.updates += 1
            self.images += len(chosen)
            self.schedule.step_update(self.updates)
            total += loss.detach()
        return float(total) / self.steps


@torch.inference_mode()
def evaluate(model: nn.Module, part: Part, spec: TrainSpec, batch: int = 512) -> tuple[float, float]:
    """Return top-1 accuracy (0..1) and mean cross-entropy of a model on a part of the data."""
    model.eval()
    right = loss = 0.0
    for images, labels in zip(part.images.split(batch), part.labels.split(batch), strict=True):
        with _autocast(spec, images):
            logits = model(images).float()
        right += float((logits.argmax(1) == labels).sum())
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
    return right / len(part), loss / len(part)


def _autocast(spec: TrainSpec, tensor: torch.Tensor) -> Any:
    if spec.precision == "bf16":
        return torch.autocast(tensor.device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()
