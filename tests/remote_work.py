"""Work for workers on test machines: it takes a while, and every start and end of a trial stands in a log."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from stemlab.records import TrialRecord


def train(order, progress, keep=None):
    trial = order.trial
    log = Path(os.environ["STEMLAB_TEST_LOG"])
    host = os.environ["STEMLAB_TEST_HOST"]

    def write(what: str) -> None:
        with log.open("a") as file:
            file.write(json.dumps([what, host, trial.digest, os.getpid(), str(keep)]) + "\n")

    write("begin")
    for epoch in range(1, 6):
        time.sleep(float(os.environ.get("STEMLAB_TEST_PAUSE", "0.1")))
        progress({"epoch": epoch, "loss": 1.0})
    if (log.parent / f"die-{trial.seed}").exists():
        os.kill(os.getpid(), 9)
    write("end")
    return TrialRecord.of(trial, "ok", metrics={"top1": int(trial.digest[:6], 16) / 16**6})


def environment(order, progress, keep=None):
    """Work that tells what its slot lets it see."""
    gpus = float(os.environ["CUDA_VISIBLE_DEVICES"].replace(",", ""))
    threads = float(os.environ["OMP_NUM_THREADS"])
    return TrialRecord.of(order.trial, "ok", metrics={"OMP_NUM_THREADS": threads, "gpus": gpus})
