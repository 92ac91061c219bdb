"""Which trials can be trained together, as one packed model."""

from __future__ import annotations

import hashlib
import json

from .training import TrainSpec
from .trial import Order, TrialSpec

OWN = (
    "lr", "weight_decay", "momentum",
    "schedule", "warmup_epochs", "min_lr", "decay_rate", "decay_epochs", "milestones",
)  # fmt: skip
"""What members of a pack may differ in, beside their seeds."""

OPTIMIZERS = ("adamw", "sgd")
"""The optimizers that go along stacked weights number by number."""

_PRECISIONS = ("fp32", "bf16")
_SHARED = ("epochs", "batch_size", "optimizer", "label_smoothing", "clip_grad", "precision")


def pack_key(trial: TrialSpec) -> str | None:
    """Return what trials have in common that can be packed together; None for one that has to train alone.

    Alone are trials with probes or latencies, with images from a disk, and with anything in their recipe that
    packing does not know.
    """
    train = trial.train
    known = train.optimizer in OPTIMIZERS and train.precision in _PRECISIONS
    more = [n for n in TrainSpec.model_fields if n not in (*OWN, *_SHARED) and getattr(train, n) is not None]
    if not known or more or trial.data.on_disk or trial.probes is not None or trial.latency is not None:
        return None
    shared = [trial.model.digest, trial.data.digest, [getattr(train, name) for name in _SHARED]]
    return hashlib.sha256(json.dumps(shared).encode()).hexdigest()[:16]


def order_key(order: Order) -> str | None:
    """Return the `pack_key` of an order's trial; None for one that may be stopped before its end."""
    return None if order.until is not None or order.floor is not None else pack_key(order.trial)
