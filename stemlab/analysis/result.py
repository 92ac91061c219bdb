"""Result: what an analysis found, as numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Result:
    """Numbers of one analysis: a tidy frame, and in words what was done."""

    title: str
    frame: pd.DataFrame
    method: str
