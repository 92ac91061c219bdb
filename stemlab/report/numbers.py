"""How a report writes numbers."""

from __future__ import annotations

import math

from ..quantities import prefixed

GAP = "–"
"""What stands where there is no number."""


def quantity(value: float) -> str:
    """Return a count in three digits with its SI prefix: 8.02 M."""
    if not math.isfinite(value):
        return GAP
    scaled, prefix = prefixed(value)
    if not prefix:
        return f"{value:.0f}"
    return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f} {prefix}"


def count(number: int, noun: str) -> str:
    """Return a number of things: 2 trials, 1 trial, no trials."""
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def number(value: float, form: str) -> str:
    """Return a number in a format of Python's, with a real minus; GAP where it is not finite."""
    return format(value, form).replace("-", "−") if math.isfinite(value) else GAP


def percent(share: float, deviation: float = math.nan) -> str:
    """Return a share in percent with one decimal, and its deviation if there is one: 93.0 ± 4.2."""
    text = number(100 * share, ".1f")
    return f"{text} ± {100 * deviation:.1f}" if math.isfinite(deviation) else text


def signed(share: float) -> str:
    """Return a share in percent with its sign and two decimals: −0.23."""
    return number(100 * share, "+.2f")
