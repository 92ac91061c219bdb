"""The embedded engine: warm worker processes on this machine, one for each slot, forked from one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import EngineError
from ..records import TrialRecord
from ..spec import Order
from .fork_server import ForkServer
from .packing import Pool, memory_needed
from .runner import RETRIES, PackProgress, Progress, RunnerClosed, failed
from .slots import Slot, find_gpus
from .work import TRAIN, perform, perform_pack, prepare, train
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
        return self._run([order], lambda worker: [worker.run(order, progress)])[0]

    def run_pack(self, orders: Sequence[Order], progress: PackProgress) -> list[TrialRecord]:
        """Run several trials as one, as `run` runs one."""
        return self._run(orders, lambda worker: worker.run_pack(orders, progress))

    def _run(self, orders: Sequence[Order], work: Callable[[WorkerProcess], list[TrialRecord]]) -> list[TrialRecord]:
        need = sum(memory_needed(order.trial) for order in orders) if self._pool.rooms else 0
        place = self._pool.take(need)
        starts = runs = 0
        try:
            while starts < _STARTS:
                try:
                    return work(self._worker(place))
                except WorkerDied as death:
                    if self._closed.is_set():
                        raise RunnerClosed("the study was stopped") from None
                    self._end(place)
                    if not death.was_ready:
                        starts, last = starts + 1, death
                    elif runs < self.retries:
                        runs += 1
                    else:  # the trial was at work each time, and may be to blame
                        why = f"{death.log}\nthe worker died: {death.reason}".strip()
                        return [failed(order.trial, why) for order in orders]
            why = (last.log.splitlines() or ["its log is empty"])[-1]
            raise EngineError(f"{_STARTS} workers died as they started ({last.reason}): {why}")
        finally:
            self._pool.give_back(place, place.slot.gpus, need)

    @property
    def places(self) -> list[Slot]:
        """The slots, one for each trial at a time."""
        return [place.slot for place in self._places]

    def everywhere(self, work: str, order: Order, environment: Mapping[str, str]) -> list[TrialRecord]:
        """Have some other work done in all slots at once, by workers of its own; their records, none if one dies."""

        workers: list[WorkerProcess] = []
        pool = ThreadPoolExecutor(self.slots)
        try:
            for slot in self.places:
                start = partial(self._server.fork, [work], {**slot.environment(), **environment})
                workers.append(WorkerProcess(start))
            records = list(pool.map(lambda worker: worker.run(order, lambda row: None), workers))
        except WorkerDied:
            return []
        finally:
            for worker in workers:  # an interrupt waits for none of them
                worker.close()
            pool.shutdown()
        return [record for record in records if record.status == "ok"]

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
        self.places = [slot]
        self._slot, self._keep = slot, keep
        # No environment holds this process to its slot: torch may see more GPUs than are to be used.
        seen = [gpu.index for gpu in find_gpus()] if slot.gpus else []
        self._device = f"cuda:{seen.index(slot.gpus[0])}" if slot.gpus else "cpu"

    def run(self, order: Order, progress: Progress) -> TrialRecord:
        """Run one trial here."""
        with self._settled():
            return perform(partial(train, device=self._device), order, progress, self._keep)

    def run_pack(self, orders: Sequence[Order], progress: PackProgress) -> list[TrialRecord]:
        """Run several trials as one, here."""
        with self._settled():
            return perform_pack(train, orders, progress, self._keep, self._device)

    @contextlib.contextmanager
    def _settled(self) -> Iterator[None]:
        import torch

        before = torch.get_num_threads()
        prepare()
        torch.set_num_threads(self._slot.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def close(self) -> None:
        """Nothing to stop."""
