"""What each arm of an ablation costs, and how far it remained from the cost it was matched to."""

from __future__ import annotations

from typing import Any

import pandas as pd

from .result import Result

COSTS = ("flops", "params", "activations", "stem_flops_share", "match_error", "seconds")


def costs(frame: Any, by: str = "arm") -> Result:
    """Return what an arm costs: multiply-adds, parameters and activations of the model for one image, and seconds.

    Rows: arm, trials, `COSTS` as means over the arm's trials (missing where none has it), and `match_error_most`, the
    match error that is furthest from none. `match_error` is signed: 0.01 is one percent above the reference.
    """
    rows = []
    for arm, trials in frame.groupby(by, sort=False):
        known = {name: pd.to_numeric(trials[name]) for name in COSTS if name in trials}
        errors = known.get("match_error", pd.Series(dtype=float)).dropna()
        rows.append(
            {
                by: arm,
                "trials": len(trials),
                **{name: known[name].mean() if name in known else float("nan") for name in COSTS},
                "match_error_most": errors.loc[errors.abs().idxmax()] if len(errors) else float("nan"),
            }
        )
    return Result(
        "What each arm costs",
        pd.DataFrame(rows, columns=[by, "trials", *COSTS, "match_error_most"]),
        "Means over an arm's trials. Multiply-adds (convolutions, linear layers, both attention products), parameters "
        "and activations are those of the whole model for one image, counted in closed form; the time is that of one "
        "trial, its evaluation included.",
    )
