"""One trial in several processes on this machine, each with a share of every batch: one on each of its GPUs."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from typing import Any

import torch

from ..errors import StemlabError
from ..records import TrialRecord
from ..spec import Order
from .run import full_batch
from .trial import Progress, Saving

_MODULE = "stemlab.train.distributed"
_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def run_distributed(
    order: Order, progress: Progress | None, processes: int, saving: Saving | None = None, device: str | None = None
) -> TrialRecord:
    """Run an order in several processes and return its record, as `run_trial` does in one; StemlabError if one dies.

    The numbers are those of one process but for rounding, unless the model has batch norms: each process normalises
    its own share. `device` is "cuda" where there are GPUs (then process n uses the n-th), else "cpu".
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    batch = full_batch(order.trial)
    if batch < processes:
        raise StemlabError(f"train.batch_size (={batch}) is less than one image for each of {processes} GPUs")
    kept = [saving.to_json()] if saving else []
    micro = 0  # as many at a time as there are, or as the kept state says
    while True:
        with tempfile.TemporaryDirectory(prefix="stemlab-") as folder, _Team(processes) as team:
            outcome = team.run(order, progress, [device, f"{folder}/meet", str(micro), *kept])
        if isinstance(outcome, TrialRecord):
            return outcome
        if outcome == 1:
            raise StemlabError("out of memory with one image at a time in each process")
        micro = (outcome + 1) // 2


class _Team:
    """The processes of one attempt; none is left when it is over."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> _Team:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
            if process.stdin is not None:
                with contextlib.suppress(OSError):  # the pipe broke with the process
                    process.stdin.close()

    def run(self, order: Order, progress: Progress | None, arguments: list[str]) -> TrialRecord | int:
        """Return the record, or how many images at a time were too many for the memory."""
        events = self._start(order, arguments)
        while True:
            try:
                line = events.get(timeout=0.2)
            except queue.Empty:
                if any(process.poll() for process in self.processes):
                    raise StemlabError(self._deaths()) from None
                continue
            event: dict[str, Any] = {"event": "end"} if line is None else json.loads(line)
            if event["event"] == "epoch" and progress:
                progress(event["row"])
            elif event["event"] == "record":
                return TrialRecord.from_dict(event["record"])
            elif event["event"] == "out of memory":
                return int(event["micro"])
            elif event["event"] in ("failed", "end"):
                raise StemlabError(f"{event.get('error', '')}\n{self._deaths()}".strip())

    def _start(self, order: Order, arguments: list[str]) -> queue.SimpleQueue[bytes | None]:
        reading, writing = os.pipe()
        try:
            for rank in range(self.count):
                self.processes.append(
                    subprocess.Popen(
                        # -P: a torch.py in the user's folder is not torch.
                        [sys.executable, "-P", "-m", _MODULE, str(rank), str(self.count), *arguments],
                        stdin=subprocess.PIPE,
                        stdout=writing,
                        env={**os.environ, "GLOO_SOCKET_IFNAME": _LOOPBACK, "NCCL_SOCKET_IFNAME": _LOOPBACK},
                    )
                )
        finally:
            os.close(writing)
        events: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(target=_pass_on, args=(reading, events), daemon=True).start()
        for process in self.processes:
            assert process.stdin is not None
            with contextlib.suppress(OSError):  # it has died: that is seen in a moment
                process.stdin.write(order.canonical_json().encode() + b"\n")
                process.stdin.flush()
        return events

    def _deaths(self) -> str:
        """Say which processes have died by themselves, and of what."""
        texts = []
        for number, process in enumerate(self.processes, start=1):
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(timeout=1)
                if code:
                    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                    texts.append(f"process {number} of {self.count} {how}")
        return "; ".join(texts)


def _pass_on(reading: int, events: queue.SimpleQueue[bytes | None]) -> None:
    with open(reading, "rb") as lines:
        for line in lines:
            events.put(line)
    events.put(None)
