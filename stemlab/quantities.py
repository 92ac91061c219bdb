"""How numbers are said, and long lists."""

from __future__ import annotations

from collections.abc import Sequence


def human(value: float) -> str:
    """Return a count as people say it: 1.08G, 4.83M, 512."""
    scaled, prefix = prefixed(value)
    return f"{scaled:.3g}{prefix}" if prefix else f"{value:g}"


def prefixed(value: float) -> tuple[float, str]:
    """Return a count in units of its SI prefix, and the prefix: empty below a thousand."""
    for limit, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * limit:  # what rounds to a thousand of one is one of the next
            return value / limit, prefix
    return value, ""


def side(lengths: Sequence[int], by: str = "x") -> str:
    """Return a height and width in short: one number for a square."""
    return str(lengths[0]) if lengths[0] == lengths[1] else by.join(map(str, lengths))


def first_of(names: Sequence[str], most: int) -> str:
    """Return names in a row, and how many more there are than that."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def duration(seconds: float) -> str:
    """Return a time as people say it: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
