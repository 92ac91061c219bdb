"""The recipe of a run: timm's optimizer and schedule from a TrainSpec."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler, StepLRScheduler
from torch import nn

from ..spec import TrainSpec


def optimizer(model: nn.Module, spec: TrainSpec) -> torch.optim.Optimizer:
    """Return timm's optimizer; norms, biases and embeddings do not decay."""
    made: torch.optim.Optimizer = create_optimizer_v2(
        model, opt=spec.optimizer, lr=spec.lr, weight_decay=spec.weight_decay, momentum=spec.momentum
    )
    return made


def schedule(made: torch.optim.Optimizer, spec: TrainSpec, steps_per_epoch: int) -> Any:
    """Return timm's scheduler, stepped once an update: linear warm-up, then half a cosine or a constant."""
    warmup = round(spec.warmup_epochs * steps_per_epoch)
    total = spec.epochs * steps_per_epoch
    common: dict[str, Any] = {"warmup_t": warmup, "warmup_lr_init": spec.lr / max(1, warmup), "t_in_epochs": False}
    if spec.schedule == "constant":
        return StepLRScheduler(made, decay_t=total + 1, decay_rate=1.0, **common)
    return CosineLRScheduler(made, t_initial=max(1, total - warmup), lr_min=spec.min_lr, warmup_prefix=True, **common)
