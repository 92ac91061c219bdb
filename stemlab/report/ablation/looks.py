"""Which arms a figure points out, and how each of them looks in all figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..svg import BLUE, GREEN, INK, ORANGE, PALE, PURPLE, SKY, VERMILLION

MOST = 8
"""So many arms at most are told apart in one figure; the others are thin and grey."""


@dataclass(frozen=True)
class Look:
    """How an arm is drawn: by colour, by mark and by dashes, so that any one of them will do."""

    colour: str
    marker: str
    dashes: Any = "-"

    @property
    def line(self) -> dict[str, Any]:
        """The options of a line."""
        return {"color": self.colour, "linestyle": self.dashes, "marker": self.marker, "linewidth": 1.5}


_LOOKS = (
    Look(INK, "o"),
    Look(VERMILLION, "D", (0, (5, 2))),
    Look(BLUE, "^"),
    Look(GREEN, "s", (0, (2, 1.2))),
    Look(ORANGE, "v", (0, (9, 2))),
    Look(PURPLE, "P", (0, (6, 2, 1.5, 2))),
    Look(SKY, "X", (0, (4, 1, 1, 1, 1, 1))),
    Look("#7a5195", "<", (0, (1, 1.2))),
)
OTHERS = Look(PALE, "")


def looks(arms: Sequence[str], differing: Iterable[str]) -> dict[str, Look]:
    """Return label -> look of the arms pointed out: all of a few; else the first (the baseline) and those that differ
    most. `differing` are labels, the most different first. The order is that of `arms`.
    """
    chosen = list(dict.fromkeys(arms if len(arms) <= MOST else [arms[0], *differing]))[:MOST]
    return dict(zip([arm for arm in arms if arm in chosen], _LOOKS, strict=False))
