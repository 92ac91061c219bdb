"""One value for a proposal from those of its trials."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from ..spec.search import Judge, QuantileSpec


def judged(values: Sequence[float | None], how: Judge | None, sign: int) -> float | None:
    """Return the mean, median, worst or a quantile of values, of which `sign` says whether larger is better (1, -1).

    None stands for a trial that has no value, since it diverged or failed. It leaves a mean and the worst without a
    value; to a median or a quantile it is worse than any number, and they have none where they fall on it. The
    quantile q is the value that a share q of the trials do not surpass: one of the values themselves.
    """
    gains = sorted(-math.inf if value is None else sign * value for value in values)
    if how is None or how == "mean":
        gain = math.fsum(gains) / len(gains)
    elif how == "median":
        gain = statistics.median(gains)
    elif isinstance(how, QuantileSpec):
        gain = gains[max(0, math.ceil(how.quantile * len(gains)) - 1)]
    else:
        gain = gains[0]
    return sign * gain if math.isfinite(gain) else None
