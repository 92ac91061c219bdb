"""Trials that are not trained: they wait, and report what a trained one would.

For runners' `work="simulated_work:sleep"`; this folder must be on PYTHONPATH, since workers import from no other.
STEMLAB_SIMULATED_SECONDS says how long a trial takes (0.5 unless set) and STEMLAB_SIMULATED_EPOCHS how many rows its
curve has (10). The accuracy follows from the trial alone: wider stems are better, with some noise, so that a tuner has
something to find. torch is not imported, so many such workers fit on a small machine.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from stemlab.engine.runner import Progress
from stemlab.matching import match
from stemlab.records import TrialRecord
from stemlab.spec import Order


def sleep(order: Order, progress: Progress, keep: Path | None = None) -> TrialRecord:
    """Wait, report the epochs, and return the record of a trial."""
    seconds = float(os.environ.get("STEMLAB_SIMULATED_SECONDS", "0.5"))
    epochs = int(os.environ.get("STEMLAB_SIMULATED_EPOCHS", "10"))
    trial = order.trial
    settled = match(trial.model)
    noise = int(trial.digest[:6], 16) / 16**6
    goal = 0.5 + 0.3 * min(1.0, 4 * settled.cost.quantity("stem_flops_share")) + 0.15 * noise
    curve = []
    for epoch in range(1, epochs + 1):
        time.sleep(seconds / epochs)
        top1 = goal * (1 - 0.5**epoch)
        curve.append({"epoch": epoch, "lr": 0.001, "train_loss": 1 - top1, "loss": 1.1 - top1, "top1": top1})
        progress({**curve[-1], "epochs": epochs})
    metrics = {
        "top1": top1,
        "top1_error": 1 - top1,
        "loss": 1.1 - top1,
        "test_top1": top1 - 0.01,
        "test_loss": 1.2 - top1,
    }
    return TrialRecord.of(
        trial,
        "ok",
        metrics={**metrics, "seconds": seconds, "images_per_second": 1000.0},
        cost=settled.cost.as_dict(),
        match=settled.as_dict(),
        curve=curve,
    )
