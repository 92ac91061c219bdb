"""The embedded engine: warm worker processes on this machine, one for each slot, forked from one."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import EngineError
from ..records import TrialRecord
from ..spec import Order
from .fork_server import ForkServer
from .packing import Pool, memory_needed
from .runner import RETRIES, Progress, RunnerClosed, failed
from .slots import Slot, find_gpus
from .work import TRAIN, perform, prepare, train
from .worker_process import WorkerDied, WorkerProcess

_STARTS = 3
"""How many workers may die in turn before they are ready; one may be killed by chance, three are a fault."""


class EmbeddedRunner:
    """Runs trials in workers that live as long as the study.

    A worker that dies is replaced and its trial run again, up to `retries` times; then its death is recorded. Trials
    that pause keep their state in `keep`.
    """

    def __init__(self, slots: list[Slot], keep: Path | None = None, retries: int = RETRIES, work: str = TRAIN) -> None:
        self.slots, self.retries = len(slots), retries
        self._arguments = (work, *([] if keep is None else [str(keep)]))
        self._closed = threading.Event()
        self._starting = threading.Lock()
        self._places = [_Place(slot) for slot in slots]
        self._pool: Pool[_Place] = Pool(
            {gpu: slot.room for slot in slots if slot.room is not None for gpu in slot.gpus}
        )
        for place in self._places:
            self._pool.add(place, place.slot.gpus)
        # The GPUs apart, the slots of a study are alike.
        self._start_server = partial(ForkServer, work, slots[0].environment())
        self._server = self._start_server()  # its imports take seconds, while the study makes its first proposals

    def run(self, order: Order, progress: Progress) -> TrialRecord:
        """Run one trial in the next idle worker; EngineError where workers die again and again as they start.

        Where GPUs are shared by memory, it waits for one that has room for the trial.
        """
        need = memory_needed(order.trial) if self._pool.rooms else 0
        place = self._pool.take(need)
        starts = runs = 0
        try:
            while starts < _STARTS:
                try:
                    return self._worker(place).run(order, progress)
                except WorkerDied as death:
                    if self._closed.is_set():
                        raise RunnerClosed("the study was stopped") from None
                    self._end(place)
                    if not death.was_ready:
                        starts, last = starts + 1, death
                    elif runs < self.retries:
                        runs += 1
                    else:  # the trial was at work each time, and may be to blame
                        return failed(order.trial, f"{death.log}\nthe worker died: {death.reason}".strip())
            why = (last.log.splitlines() or ["its log is empty"])[-1]
            raise EngineError(f"{_STARTS} workers died as they started ({last.reason}): {why}")
        finally:
            self._pool.give_back(place, place.slot.gpus, need)

    def _worker(self, place: _Place) -> WorkerProcess:
        """Return the worker of a place; start it if there is none."""
        with self._starting:
            if place.worker is None:
                if not self._server.is_alive():
                    self._server.close()
                    self._server = self._start_server()
                if self._closed.is_set():
                    self._server.close()
                    raise RunnerClosed("the study was stopped")
                environment, server = place.slot.environment(), self._server
                place.worker = WorkerProcess(lambda log: server.fork(self._arguments, environment, log))
            return place.worker

    def _end(self, place: _Place) -> None:
        with self._starting:
            worker, place.worker = place.worker, None
        if worker is not None:
            worker.close()

    def close(self) -> None:
        """Kill all workers and what they started, and wait until they are gone."""
        self._closed.set()
        self._server.close()
        for place in self._places:
            self._end(place)


@dataclass(eq=False)
class _Place:
    """Room for one worker at a time."""

    slot: Slot
    worker: WorkerProcess | None = None


class InlineRunner:
    """Runs trials in the calling process, one at a time: `workers: 0`, for debuggers."""

    def __init__(self, slot: Slot, keep: Path | None = None) -> None:
        self.slots = 1
        self._slot, self._keep = slot, keep
        # No environment holds this process to its slot: torch may see more GPUs than are to be used.
        seen = [gpu.index for gpu in find_gpus()] if slot.gpus else []
        self._device = f"cuda:{seen.index(slot.gpus[0])}" if slot.gpus else "cpu"

    def run(self, order: Order, progress: Progress) -> TrialRecord:
        """Run one trial here."""
        import torch

        before = torch.get_num_threads()
        prepare()
        torch.set_num_threads(self._slot.threads)
        try:
            return perform(partial(train, device=self._device), order, progress, self._keep)
        finally:
            torch.set_num_threads(before)

    def close(self) -> None:
        """Nothing to stop."""
