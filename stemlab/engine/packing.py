"""How much memory a trial's training takes, and which trials may share a GPU.

The estimate is closed-form, from the matched model and the recipe (docs/gpus.md has its terms); no trial is run for it.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from collections.abc import Mapping
from typing import Generic, TypeVar

from ..data.memory import bytes_in_memory
from ..matching import match
from ..spec import TrainSpec, TrialSpec

CONTEXT = 700
"""MiB that a process takes on a GPU before it has a single tensor there: CUDA's context, kernels and workspaces."""

USABLE = 0.9
"""The share of a GPU's memory that is given out."""

_SAFETY = 1.25
_STATES = {"adan": 4, "adanw": 4, "madgrad": 3, "madgradw": 3, "mars": 3}
_ONE_STATE = ("sgd", "momentum", "sgdp", "sgdw", "nesterovw", "lion", "larc", "lars", "nlarc", "nlars", "adagrad")
# Norms, activation functions, softmaxes and residual sums are no "activations" of our costs, and are kept as well.
_KEPT = 2.0
_JUDGED = 512

W = TypeVar("W")


def memory_needed(trial: TrialSpec) -> int:
    """Return the MiB that a trial takes on its GPU while it trains, the CUDA context apart. Rather too much."""
    settled = match(trial.model)
    cost, train, parts = settled.cost, trial.train, trial.data.part_sizes
    weights = cost.params * 4 * (2 + states(train.optimizer) + (train.ema is not None))
    trained = _KEPT * min(train.batch_size, parts[0]) * cost.activations
    # Inference keeps one block at a time.
    judged = min(_JUDGED, max(parts[1:])) * (cost.stem.activations + cost.body.activations / settled.model.body.depth)
    data = bytes_in_memory(trial.data, train.augment)
    return math.ceil(_SAFETY * (weights + max(trained, judged) * _width(train) + data) / 2**20)


def states(optimizer: str) -> int:
    """Return how many numbers an optimizer keeps for each weight, at most."""
    return 1 if optimizer in _ONE_STATE else _STATES.get(optimizer, 2)


def _width(train: TrainSpec) -> int:
    """Return the bytes of a kept number: with half precision some stay single, and weights are copied."""
    return 3 if train.precision in ("bf16", "fp16") else 4


def room(memory_mib: int, trials: int) -> int:
    """Return the MiB of a GPU that its trials may fill together, where so many processes are to share it."""
    return max(0, int(memory_mib * USABLE) - trials * CONTEXT)


class Pool(Generic[W]):
    """Idle workers. Those on a GPU with a `room` are given a trial only while the needs of all on that GPU fit in it.

    Who asks first is served first: a large trial is not passed over for ever by small ones. One that is larger than
    the room has the GPU to itself. Safe for threads.
    """

    def __init__(self, rooms: Mapping[int, int]) -> None:
        """Take the rooms of GPUs by their index, in MiB; a GPU that is not among them holds whatever is put on it."""
        self.rooms = dict(rooms)
        self.used: Counter[int] = Counter()
        self.running: Counter[int] = Counter()
        self._idle: list[tuple[W, tuple[int, ...]]] = []
        self._line: deque[object] = deque()
        self._changed = threading.Condition()

    def add(self, worker: W, gpus: tuple[int, ...]) -> None:
        """Add an idle worker, which is on these GPUs."""
        with self._changed:
            self._idle.append((worker, gpus))
            self._changed.notify_all()

    def take(self, need: int) -> W:
        """Wait for a worker with room for a trial that needs so many MiB of each of its GPUs; return it."""
        ticket = object()
        with self._changed:
            self._line.append(ticket)
            try:
                self._changed.wait_for(lambda: self._line[0] is ticket and self._find(need) is not None)
                place = self._find(need)
                assert place is not None
            finally:
                self._line.remove(ticket)
                self._changed.notify_all()
            worker, gpus = self._idle.pop(place)
            for gpu in gpus:
                self.used[gpu] += need
                self.running[gpu] += 1
            return worker

    def give_back(self, worker: W, gpus: tuple[int, ...], need: int) -> None:
        """Take a worker back (or the one that is in its place), whose trial has ended."""
        with self._changed:
            for gpu in gpus:
                self.used[gpu] -= need
                self.running[gpu] -= 1
            self._idle.append((worker, gpus))
            self._changed.notify_all()

    def _find(self, need: int) -> int | None:
        """Return the place of the idle worker whose GPU has most room left, of those that have enough."""
        fitting = [place for place, (_, gpus) in enumerate(self._idle) if all(self._fits(gpu, need) for gpu in gpus)]
        return min(fitting, key=lambda place: self._fullness(self._idle[place][1]), default=None)

    def _fits(self, gpu: int, need: int) -> bool:
        return gpu not in self.rooms or self.running[gpu] == 0 or self.used[gpu] + need <= self.rooms[gpu]

    def _fullness(self, gpus: tuple[int, ...]) -> int:
        return max((self.used[gpu] - self.rooms.get(gpu, 0) for gpu in gpus), default=0)
