"""A data set by its spec, as tensors or files that a model can be trained on."""

from __future__ import annotations

from ..spec import DataSpec
from .digits import load_digits
from .split import Splits


def load(spec: DataSpec, device: str = "cpu") -> Splits:
    """Return the parts of a data set, for a model that trains on this device."""
    return load_digits(spec, device)


def forget() -> None:
    """Let go of the sets that are kept in memory from one trial to the next."""
    load_digits.cache_clear()
