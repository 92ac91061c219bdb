"""Loss spikes: steps whose loss is far above what the steps before them make likely."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from statistics import median
from typing import Any

import torch

from .steps import StepProbe

WINDOW = 64
"""How many of the losses before a step it is compared with."""

LEAST = 16
"""No step is judged that has fewer finite losses before it."""

DEVIATIONS = 7.0
"""How many standard deviations a spike stands out: as many as in OLMo 2's spike score (arXiv 2501.00656)."""

RISE = 0.1
"""A spike is a rise of at least this share of the loss of guessing."""


class LossSpikes(StepProbe):
    """Counts the steps whose training loss exceeds both limits that the last WINDOW finite losses set.

    One is median + DEVIATIONS * 1.4826 * MAD: the spike score of OLMo 2 (arXiv 2501.00656: seven standard deviations
    from the rolling mean of 1,000 values), on a shorter window, and with Hampel's robust estimates of mean and
    deviation (1974, doi 10.1080/01621459.1974.10482962), which earlier spikes do not inflate. The other is median +
    RISE * ln(classes): where a model has learned its images by heart the losses hardly differ, and a single harder one
    would be a spike. A loss that is infinite or not a number is no spike but the end of the run.
    """

    def __init__(self, classes: int) -> None:
        self.rise = RISE * math.log(max(2, classes))
        self.recent: deque[float] = deque(maxlen=WINDOW)
        self.losses: list[torch.Tensor] = []
        self.total = 0

    def before_step(self, loss: torch.Tensor) -> None:
        """Keep the loss of this step."""
        self.losses.append(loss.detach())

    def columns(self) -> dict[str, float | None]:
        """Return spikes: how many steps of the epoch were."""
        count = self.count(torch.stack(self.losses).double().tolist())
        self.losses.clear()
        return {"spikes": count}

    def count(self, losses: Iterable[float]) -> int:
        """Return how many of these losses, which follow on those seen before, are spikes."""
        found = 0
        for loss in losses:
            if not math.isfinite(loss):
                continue
            if len(self.recent) >= LEAST:
                middle = median(self.recent)
                deviation = 1.4826 * median(abs(other - middle) for other in self.recent)
                found += loss > middle + max(DEVIATIONS * deviation, self.rise)
            self.recent.append(loss)
        self.total += found
        return found

    def summary(self) -> dict[str, Any]:
        """Return loss_spikes: how many of all steps were."""
        return {"loss_spikes": self.total}

    def state(self) -> dict[str, Any]:
        """Return the losses that the next one is compared with, and the count so far."""
        return {"recent": list(self.recent), "total": self.total}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        self.recent.extend(state["recent"])
        self.total = state["total"]
