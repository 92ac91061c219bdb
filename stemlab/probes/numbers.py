"""Numbers that a record can hold: finite ones, or null."""

from __future__ import annotations

import math
from typing import Any

import torch

DIGITS = 6
"""Significant digits of a measurement in a record: more are noise, and make records long."""


def finite(value: float | torch.Tensor) -> float | None:
    """Return a number to DIGITS digits, None where it is infinite or not a number."""
    number = float(value)
    return float(f"{number:.{DIGITS}g}") if math.isfinite(number) else None


def all_finite(values: torch.Tensor) -> Any:
    """Return a tensor as lists of numbers, None in the place of each that is not finite."""
    return finite(values) if values.ndim == 0 else [all_finite(row) for row in values.cpu()]
