"""Why a trial is not trained on: it has diverged, or falls short of a floor."""

from __future__ import annotations

import math
from typing import Any

from ..spec import Floor

EXPLODED = 10.0
"""A run whose mean loss over an epoch exceeds this many times that of guessing has exploded."""


def divergence(train_loss: float, epoch: int, classes: int) -> str | None:
    """Return what is wrong with an epoch's training loss, None where nothing is."""
    if not math.isfinite(train_loss):
        return f"the training loss became {train_loss} in epoch {epoch}"
    if train_loss > EXPLODED * math.log(max(2, classes)):
        return f"the training loss exploded to {train_loss:.3g} in epoch {epoch}"
    return None


def misjudged(loss: float, epoch: int) -> str | None:
    """Return what is wrong with an epoch's validation loss, None where nothing is."""
    return None if math.isfinite(loss) else f"the validation loss became {loss} in epoch {epoch}"


def shortfall(floor: Floor | None, curve: list[dict[str, Any]]) -> str | None:
    """Return by how much the best value of a curve misses the floor behind its last epoch, None where it does not."""
    epoch = len(curve)
    least = floor.values[epoch - 1] if floor is not None and epoch <= len(floor.values) else None
    if floor is None or least is None:
        return None
    values = [1 - row["top1"] if floor.metric == "top1_error" else row[floor.metric] for row in curve]
    best = max(floor.sign * value for value in values) * floor.sign
    if floor.sign * best >= floor.sign * least:
        return None
    return (
        f"stopped behind epoch {epoch}: {floor.metric} was {best:.4g} at best, which misses the floor of {least:.4g} "
        f"by {abs(best - least):.2g}"
    )
