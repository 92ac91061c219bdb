"""The recipe of a run: timm's optimizer and schedule from a TrainSpec."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import create_optimizer_v2, param_groups_layer_decay, param_groups_weight_decay
from timm.scheduler import (
    CosineLRScheduler,
    MultiStepLRScheduler,
    PolyLRScheduler,
    StepLRScheduler,
    TanhLRScheduler,
)
from torch import nn

from ..spec import TrainSpec

_DECAY_RATE = 0.1
_FUSED = ("adam", "adamw", "sgd", "momentum")
"""torch's own, which it can take in one go over all parameters: a quarter of the time, even on a CPU."""


def optimizer(model: nn.Module, spec: TrainSpec) -> torch.optim.Optimizer:
    """Return timm's optimizer; norms, biases and embeddings do not decay."""
    own = spec.layer_decay is not None or spec.stem_lr is not None or spec.stem_weight_decay is not None
    more: dict[str, Any] = {"fused": True} if spec.optimizer in _FUSED else {}
    made: torch.optim.Optimizer = create_optimizer_v2(
        groups(model, spec) if own else model,
        opt=spec.optimizer,
        lr=spec.lr,
        weight_decay=spec.weight_decay,
        momentum=spec.momentum,
        **more,
    )
    return made


def groups(model: Any, spec: TrainSpec) -> list[dict[str, Any]]:
    """Return groups of parameters with a weight decay each, and an `lr_scale` that timm's schedules keep to."""
    # With a decay of one, timm's groups say what decays; how much is ours to say.
    if spec.layer_decay is not None:
        found = param_groups_layer_decay(model, 1.0, model.no_weight_decay(), layer_decay=spec.layer_decay)
    else:
        found = param_groups_weight_decay(model, 1.0, no_weight_decay_list=model.no_weight_decay())
    stem = {id(parameter) for parameter in model.patch_embed.parameters()}
    of_stem = (1.0 if spec.stem_lr is None else spec.stem_lr, spec.weight_decay)
    if spec.stem_weight_decay is not None:
        of_stem = (of_stem[0], spec.stem_weight_decay)
    made = []
    for group in found:
        for inside, (scale, decay) in ((True, of_stem), (False, (1.0, spec.weight_decay))):
            parameters = [parameter for parameter in group["params"] if (id(parameter) in stem) is inside]
            if parameters:
                scales = {"lr_scale": scale * group.get("lr_scale", 1.0), "weight_decay": decay * group["weight_decay"]}
                made.append({**group, "params": parameters, **scales})
    return made


def warmup(spec: TrainSpec, steps_per_epoch: int) -> int:
    """Return how many updates the warm-up has."""
    return round(spec.warmup_epochs * steps_per_epoch)


def schedule(made: torch.optim.Optimizer, spec: TrainSpec, steps_per_epoch: int) -> Any:
    """Return timm's scheduler, stepped once an update: linear warm-up, then what the recipe says."""
    warm, total = warmup(spec, steps_per_epoch), spec.epochs * steps_per_epoch
    common: dict[str, Any] = {"warmup_t": warm, "warmup_lr_init": spec.lr / max(1, warm), "t_in_epochs": False}
    if spec.schedule == "constant":
        return StepLRScheduler(made, decay_t=total + 1, decay_rate=1.0, **common)
    if spec.schedule in ("step", "multistep"):
        # Epochs of a schedule in steps are counted from the beginning of the training.
        common |= {"decay_rate": spec.decay_rate or _DECAY_RATE, "warmup_prefix": False}
        if spec.schedule == "step":
            return StepLRScheduler(made, decay_t=max(1, round((spec.decay_epochs or 1) * steps_per_epoch)), **common)
        # timm has a milestone one update early.
        places = [milestone * steps_per_epoch + 1 for milestone in sorted(spec.milestones or ())]
        return MultiStepLRScheduler(made, decay_t=places, **common)
    falling = {"cosine": CosineLRScheduler, "poly": PolyLRScheduler, "tanh": TanhLRScheduler}[spec.schedule]
    return falling(made, t_initial=max(1, total - warm), lr_min=spec.min_lr, warmup_prefix=True, **common)


def options(spec: TrainSpec) -> dict[str, Any]:
    """Return what a recipe asks of timm's class when the model is built (builders.build_model)."""
    return {} if spec.drop_path is None else {"drop_path_rate": spec.drop_path}
