"""Results frames of made-up ablations."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd


def study(**columns: Any) -> pd.DataFrame:
    """Return a results frame from the values of each arm: (draws,) or (draws, seeds), NaN for a failed run."""
    values = {arm: np.array(given, dtype=float) for arm, given in columns.items()}
    rows = []
    for arm, table in values.items():
        table = table.reshape(len(table), -1)
        for draw, seed in itertools.product(*map(range, table.shape)):
            x = table[draw, seed]
            status = "failed" if np.isnan(x) else "diverged" if np.isinf(x) else "ok"
            value = 0.1 if status == "diverged" else x
            row = {"arm": arm, "draw": draw, "seed": seed, "status": status, "value": value}
            rows.append(row | {"error": x if status == "diverged" else 1 - x})
    return pd.DataFrame(rows)
