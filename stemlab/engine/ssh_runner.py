"""Workers on other machines, over SSH: no port is opened, nothing is copied, and a lost machine costs its trials' time.

Each worker is a process on its machine at the end of a connection of its own, spoken to on stdin and stdout.
"""

from __future__ import annotations

import hashlib
import json
import platform
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import EngineError
from ..records import TrialRecord
from ..spec import EngineSpec, MachineSpec, Order
from . import machines, ssh
from .far import SIGN_OF_LIFE
from .runner import RETRIES, Progress, RunnerClosed, failed, retries_of
from .slots import Slot
from .work import TRAIN
from .worker_process import Spawned, WorkerDied, WorkerProcess

PAUSES = (0.0, 2.0, 10.0, 60.0, 120.0)
"""Seconds before each attempt to reach a machine; one that starts anew is back by the last."""

LOSSES = 3
"""How often a machine may be lost before it finishes a trial, or a trial's machine, before one of them is to blame."""


@dataclass(eq=False)
class _Place:
    """Room for one trial on a machine."""

    machine: MachineSpec
    slot: Slot
    start_after: float
    worker: WorkerProcess | None = None
    losses: int = 0

    @property
    def name(self) -> str:
        return ssh.place(self.machine)


class SshRunner:
    """Runs trials on other machines, one at each place.

    A trial whose machine is lost is run again, on another machine where there is one. A machine that is lost is tried
    again after longer and longer `pauses`; it is left out where it does not come back, refuses us or is lost again and
    again. `note` gets what is worth a line. Trials that pause keep their state on their machine, in a folder that
    belongs to the study of folder `keep`.
    """

    def __init__(
        self,
        places: Sequence[tuple[MachineSpec, Slot]],
        note: Callable[[str], None],
        keep: Path | None = None,
        retries: int = RETRIES,
        work: str = TRAIN,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        self.slots, self.retries = len(places), retries
        self._note, self._work, self._pauses = note, work, pauses
        self._keep = None if keep is None else _name(keep)
        self._closed = threading.Event()
        self._change = threading.Condition()
        self._workers: list[WorkerProcess] = []
        # An sshd turns away what knocks many times at once.
        self._places = [_Place(machine, slot, 0.1 * i) for i, (machine, slot) in enumerate(places)]
        self._idle: list[_Place] = []
        self._left_out: dict[_Place, str] = {}
        self._homes: dict[str, MachineSpec] = {}  # where the state of a paused trial is
        self._threads = [threading.Thread(target=self._give_signs, daemon=True)]
        self._threads[0].start()
        for place in self._places:
            self._tend(place)

    def run(self, order: Order, progress: Progress) -> TrialRecord:
        """Run one trial at the next idle place; EngineError once no machine is left."""
        lost: list[MachineSpec] = []
        deaths = 0
        while True:
            place = self._take(order, lost)
            assert place.worker is not None
            try:
                record = place.worker.run(order, progress)
            except WorkerDied as death:
                if self._closed.is_set():
                    raise RunnerClosed("the study was stopped") from None
                why = ssh.explain(place.machine, death.code, death.log)
                if death.code != ssh.LOST:
                    deaths += 1
                    self._tend(place)
                    if deaths > self.retries:
                        text = f"{death.log}\n{place.name}: the worker died: {death.reason}"
                        return failed(order.trial, text.strip())
                    continue
                lost.append(place.machine)
                self._lose(place, why)
                if len(lost) == LOSSES:
                    return failed(order.trial, f"{LOSSES} times its machine was lost while it ran; the last: {why}")
            except BaseException:
                self._tend(place)  # what runs there is wanted no more
                raise
            else:
                with self._change:
                    place.losses = 0
                    if order.until is not None:
                        self._homes[order.trial.digest] = place.machine
                    self._idle.append(place)
                    self._change.notify_all()
                return record

    def _take(self, order: Order, lost: list[MachineSpec]) -> _Place:
        """Wait for an idle place: not where the trial was lost, if there is another; best where it paused."""
        with self._change:
            while not self._closed.is_set():
                living = [place for place in self._places if place not in self._left_out]
                if not living:
                    raise EngineError(f"no machine is left: {'; '.join(dict.fromkeys(self._left_out.values()))}")
                wanted = [place for place in living if place.machine not in lost] or living
                idle = [place for place in self._idle if place in wanted]
                if idle:
                    home = self._homes.get(order.trial.digest)
                    place = next((p for p in idle if p.machine == home), idle[0])
                    self._idle.remove(place)
                    return place
                self._change.wait()
        raise RunnerClosed("the study was stopped")

    def _lose(self, place: _Place, why: str) -> None:
        place.losses += 1
        if place.losses == LOSSES:
            self._leave_out(place, f"{why} ({LOSSES} times before a trial was finished)")
        else:
            self._note(f"{why}; its trial is run again elsewhere")
            self._tend(place)

    def _leave_out(self, place: _Place, why: str) -> None:
        with self._change:
            self._left_out[place] = why
            here = [other for other in self._places if other.machine == place.machine]
            all_gone = all(other in self._left_out for other in here)
            self._change.notify_all()
        if all_gone:
            self._note(f"{place.name} is left out from here on: {why}")

    def _tend(self, place: _Place) -> None:
        thread = threading.Thread(target=self._start, args=(place,), name=place.name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _start(self, place: _Place) -> None:
        """Replace a place's worker: try until one is ready, or leave the place out."""
        if place.worker is not None:
            self._end(place.worker)
        why = ""
        for pause in self._pauses:
            if self._closed.wait(place.start_after + pause):
                return
            try:
                worker = self._connect(place)
            except EngineError as error:
                why = str(error)
                break
            if worker is None:
                return
            try:
                worker.await_ready()
            except WorkerDied as death:
                self._end(worker)
                why = ssh.explain(place.machine, death.code, death.log)
                if ssh.is_refusal(death.log):
                    break
            else:
                with self._change:
                    place.worker = worker
                    self._idle.append(place)
                    self._change.notify_all()
                return
        if not self._closed.is_set():
            self._leave_out(place, why)

    def _connect(self, place: _Place) -> WorkerProcess | None:
        settings = {"work": self._work, "keep": self._keep, "environment": place.slot.environment()}
        command = ssh.command(place.machine, ssh.WORKER)
        with self._change:
            if self._closed.is_set():
                return None
            first = f"{place.machine.python}\n{json.dumps(settings)}\n"
            worker = WorkerProcess(lambda log: Spawned(command, log), first)
            self._workers.append(worker)
            return worker

    def _end(self, worker: WorkerProcess) -> None:
        with self._change:
            if worker in self._workers:
                self._workers.remove(worker)
        worker.close()

    def _give_signs(self) -> None:
        """Let the workers know that we live; one that hears nothing for long ends itself."""
        while not self._closed.wait(SIGN_OF_LIFE):
            with self._change:
                workers = list(self._workers)
            for worker in workers:
                worker.send("\n")

    def close(self) -> None:
        """End all connections; the workers over there end with them."""
        with self._change:
            self._closed.set()
            workers = list(self._workers)
            self._change.notify_all()
        for worker in workers:
            worker.close()
        for thread in self._threads:
            thread.join(timeout=10)


def _name(keep: Path) -> str:
    """Return the name of a study's states on other machines: the same when it goes on, and no other study's."""
    return hashlib.sha256(f"{platform.node()}:{keep.resolve()}".encode()).hexdigest()[:24]


def start(
    engine: EngineSpec,
    found: Sequence[machines.Machine],
    concurrency: int,
    note: Callable[[str], None],
    keep: Path | None = None,
    work: str = TRAIN,
) -> SshRunner:
    """Start workers on machines that `machines.require` found good, as many as the study can use at a time."""
    for machine in found:
        for text in machine.notes:
            note(f"{machine.name}: {text}")
    return SshRunner(machines.places(engine, found, concurrency), note, keep, retries_of(engine), work)
