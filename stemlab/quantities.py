"""How large numbers are said."""

from __future__ import annotations


def human(value: float) -> str:
    """Return a count as people say it: 1.08G, 4.83M, 512."""
    for limit, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * limit:  # what rounds to a thousand of one is one of the next
            return f"{value / limit:.3g}{suffix}"
    return f"{value:g}"
