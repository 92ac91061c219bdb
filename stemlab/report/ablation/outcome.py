"""How the outcome of an ablation is said: an accuracy in percent and points, a loss as it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..numbers import GAP, number

_WORDS = {
    "test_top1": "test top-1",
    "test_loss": "test loss",
    "top1": "validation top-1",
    "loss": "validation loss",
}


@dataclass(frozen=True)
class Outcome:
    """What a study compares, by its name in the records."""

    name: str

    @property
    def is_loss(self) -> bool:
        """Whether less is better."""
        return self.name.endswith("loss")

    @property
    def words(self) -> str:
        """What it is called: test top-1."""
        return _WORDS[self.name]

    @property
    def axis(self) -> str:
        """What it is called on an axis or in a heading, with its unit."""
        words = self.words[0].upper() + self.words[1:]
        return words if self.is_loss else f"{words} (%)"

    @property
    def points(self) -> str:
        """The unit of a difference, as in a heading."""
        return self.words if self.is_loss else "points"

    @property
    def scale(self) -> float:
        """From a record's number to the one that is shown."""
        return 1.0 if self.is_loss else 100.0

    def value(self, value: float) -> str:
        """Return a value without its unit: 93.1, 0.2345."""
        return number(self.scale * value, ".4f" if self.is_loss else ".1f")

    def said(self, value: float) -> str:
        """Return a value with its unit, for a sentence: 93.1 %."""
        return self.value(value) + ("" if self.is_loss else " %")

    def difference(self, value: float) -> str:
        """Return a difference with its sign, without its unit: −4.21."""
        return number(self.scale * value, "+.4f" if self.is_loss else "+.2f")

    def interval(self, low: float, high: float) -> str:
        """Return the interval of a difference: −5.60 to −2.90."""
        known = math.isfinite(low) and math.isfinite(high)
        return f"{self.difference(low)} to {self.difference(high)}" if known else GAP

    def better(self, difference: float) -> str:
        """Return in words which way a difference goes."""
        return "better" if (difference < 0) == self.is_loss else "worse"
