"""Works that stand for training, in the warm hosts of NNI's engine. Results follow from the trial alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

from stemlab.records import TrialRecord


def value(digest: str) -> float:
    """The result of a trial."""
    return int(digest[:6], 16) / 16**6


def simulate(order, progress, keep):
    """Two epochs, at once or nearly so; one trial in six diverges."""
    result = value(order.trial.digest)
    for epoch in (1, 2):
        time.sleep(random.random() * 0.05)
        progress({"epoch": epoch, "top1": result, "loss": float("nan")})
    if result < 1 / 6:
        return TrialRecord.of(order.trial, "diverged")
    return TrialRecord.of(order.trial, "ok", metrics={"top1": result}, curve=[{"top1": result}] * 50)


def die(order, progress, keep):
    """The out-of-memory killer comes."""
    print("that was too much", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def with_child(order, progress, keep):
    """Some seconds of work, with a child process."""
    with subprocess.Popen(["sleep", "600"]) as child:
        progress({"epoch": 1})
        time.sleep(3)
        child.kill()
    return TrialRecord.of(order.trial, "ok", metrics={"top1": value(order.trial.digest)})
