"""A data set by its spec, as tensors or files that a model can be trained on."""

from __future__ import annotations

from dataclasses import replace

from ..spec import AugmentSpec, DataSpec
from .digits import load_digits
from .split import MemoryPart, Splits


def load(spec: DataSpec, device: str = "cpu", augment: AugmentSpec | None = None) -> Splits:
    """Return the parts of a data set, for a model that trains on this device, on images varied as `augment` says."""
    found = load_digits(spec, device)
    if augment is not None and isinstance(found.train, MemoryPart):
        return replace(found, train=replace(found.train, augment=augment))
    return found


def forget() -> None:
    """Let go of the sets that are kept in memory from one trial to the next."""
    load_digits.cache_clear()
