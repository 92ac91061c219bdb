"""The median stopping rule of Vizier (Golovin et al. 2017), by results that a proposal may see."""

from __future__ import annotations

import statistics
from bisect import insort
from typing import Any

from ..spec import FidelitySpec, Floor, Objective


class MedianRule:
    """What a trial must reach: behind each epoch, the median of the means that the trials before it had by then."""

    def __init__(self, fidelity: FidelitySpec, objective: Objective) -> None:
        self.fidelity, self.objective = fidelity, objective
        self._means: list[list[float]] = []  # one sorted list an epoch

    def add(self, curve: list[dict[str, Any]]) -> None:
        """Take the learning curve of a trial."""
        is_error = self.objective.metric == "top1_error"  # curves have top1
        values = [1 - row["top1"] if is_error else row[self.objective.metric] for row in curve]
        for epoch in range(len(values)):
            if epoch == len(self._means):
                self._means.append([])
            insort(self._means[epoch], statistics.fmean(values[: epoch + 1]))

    def floor(self) -> Floor:
        """Return the floor of the next proposal; none before `min_epochs`."""
        medians = [
            statistics.median(means) if epoch >= self.fidelity.min_epochs else None
            for epoch, means in enumerate(self._means, start=1)
        ]
        return Floor.model_validate({"metric": self.objective.metric, "sign": self.objective.sign, "values": medians})
