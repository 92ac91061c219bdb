"""How many trials are trained as one, and which: chosen from a measurement on a CPU, by a rule on a GPU."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from ..data.cache import Arrays, kept
from ..errors import EngineError
from ..matching import match
from ..records import TrialRecord
from ..spec import EngineSpec, Order, SearchSpec, TrialSpec
from ..spec.packs import order_key, pack_key
from . import manifest
from .embedded import EmbeddedRunner, InlineRunner
from .loop import Job, Packing
from .packing import memory_needed, room
from .runner import Runner
from .slots import Slot, find_gpus

MOST = 64
"""No pack has more members, unless the study says so."""

_TRIED = (1, 4, 16, 64)
_FEW = 8  # trials: fewer are done before anything is measured
_SHORT = 3e11  # forward flops that a core has to do in a study before a choice is worth its measurement: a minute
_SMALL = 1e11  # forward flops of a batch below which a GPU waits for its kernels to be launched
_GAIN = 1.05
_CPU_SHARE = 0.5
_LIMIT = "STEMLAB_PACK_LIMIT"
_WORK = "stemlab.engine.packs:time_packs"


@dataclass(frozen=True)
class Choice:
    """How many trials at a time are trained as one (1: each alone), and how much faster, where that was measured."""

    members: int = 1
    gain: float | None = None

    def __str__(self) -> str:
        """Say it in a line."""
        if self.members == 1:
            return "trials are trained one by one"
        told = "" if self.gain is None else f": {self.gain:.1f} times as fast as one by one"
        return f"{self.members} trials at a time are trained as one{told}"


def choose(engine: EngineSpec, trials: Sequence[TrialSpec], runner: Runner) -> Choice:
    """Return how the trials of a study are packed; `trials` are those known beforehand, or that may wait together.

    A number that the study gives holds, as far as the memory does. Else, on a GPU small models are packed, and on a CPU
    a few steps are timed, unless the study is over soon anyway; what was measured is kept for the next study.
    """
    keys = Counter(key for trial in trials if (key := pack_key(trial)) is not None)
    if engine.pack == "never" or not keys or not isinstance(runner, EmbeddedRunner | InlineRunner):
        return Choice()
    slots = runner.places
    key, count = keys.most_common(1)[0]
    trial = next(trial for trial in trials if pack_key(trial) == key)
    most = min(count, -(-len(trials) // len(slots)), _room(slots) // memory_needed(trial))
    if isinstance(engine.pack, int):
        return Choice(max(1, min(engine.pack, most)))
    most = min(most, MOST)
    if most < 2 or len(slots[0].gpus) > 1:
        return Choice()
    flops = match(trial.model).cost.flops
    if slots[0].gpus:
        return Choice(most if flops * trial.train.batch_size < _SMALL else 1)
    each = flops * trial.train.epochs * trial.data.part_sizes[0]
    if not isinstance(runner, EmbeddedRunner) or len(trials) < _FEW or each * len(trials) / len(slots) < _SHORT:
        return Choice()
    try:
        return _fastest(_measured(key, trial, most, slots, runner))
    except EngineError:  # what cannot be measured is not packed
        return Choice()


def of_search(study: SearchSpec, slots: int) -> int:
    """Return how many trials of a search are trained as one: as its number says, while no slot is left idle by it.

    What a search will train is not known before, so nothing is measured.
    """
    wanted = study.engine.pack if isinstance(study.engine.pack, int) else 1
    return max(1, min(wanted, study.search.concurrency * study.search.trials_each // slots))


def together(jobs: Sequence[Job], pack: int) -> list[Job]:
    """Return jobs so ordered that packs stand together: the first of each where it stood, packs of one kind alike."""
    groups: dict[str, list[int]] = {}
    for place, job in enumerate(jobs):
        groups.setdefault(order_key(job.order) or f"alone {place}", []).append(place)
    packs = []
    for places in groups.values():
        count = -(-len(places) // pack)
        packs += [places[n * len(places) // count : (n + 1) * len(places) // count] for n in range(count)]
    return [replace(jobs[place], pack=number) for number, places in enumerate(sorted(packs)) for place in places]


def packing(runner: Runner, most: int) -> Packing | None:
    """Return how a runner packs up to `most` trials; None where it does not."""
    return Packing(most, runner.run_pack) if most > 1 and isinstance(runner, EmbeddedRunner | InlineRunner) else None


def _room(slots: Sequence[Slot]) -> int:
    """Return the MiB that a pack may fill."""
    if slots[0].gpus:
        sharing = Counter(gpu for slot in slots for gpu in slot.gpus)
        own = [gpu for gpu in find_gpus() if gpu.index in sharing]
        return min(room(gpu.memory_mib, sharing[gpu.index]) // sharing[gpu.index] for gpu in own)
    return int(psutil.virtual_memory().available / 2**20 * _CPU_SHARE / len(slots))


def _measured(key: str, trial: TrialSpec, most: int, slots: Sequence[Slot], runner: EmbeddedRunner) -> Arrays:
    """Return `members` and the `seconds` that each takes for an update: as measured now, or earlier on this machine."""
    depends = [key, most, len(slots), slots[0].threads, manifest.versions(), manifest.hardware()["cpu"]]
    name = hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]

    def make() -> Arrays:
        records = runner.everywhere(_WORK, Order(trial=trial), {_LIMIT: str(most)})
        if not records:
            raise EngineError("no worker could time a pack")
        sizes = set.intersection(*({int(name) for name in record.metrics} for record in records))
        seconds = [median(record.metrics[str(size)] for record in records) for size in sorted(sizes)]
        return {"members": np.array(sorted(sizes)), "seconds": np.array(seconds)}

    return kept(f"pack-{name}", make)


def _fastest(measured: Arrays) -> Choice:
    seconds = dict(zip(measured["members"].tolist(), measured["seconds"].tolist(), strict=True))
    best = min(seconds, key=lambda members: seconds[members], default=1)
    gain = seconds[1] / seconds[best] if seconds else 1.0
    return Choice(best, gain) if gain > _GAIN else Choice()


def time_packs(order: Order, progress: Callable[[dict[str, float]], None], keep: Path | None = None) -> TrialRecord:
    """Time packs of more and more members as long as that pays; the metrics are the seconds of a member's update."""
    from ..train import settle
    from ..train.packed import update_seconds

    settle()
    most, found = int(os.environ[_LIMIT]), dict[str, float]()
    for members in dict.fromkeys(min(tried, most) for tried in _TRIED):
        found[str(members)] = update_seconds(order.trial, members)
        if members > 4 and found[str(members)] > min(found.values()):
            break
    return TrialRecord.of(order.trial, "ok", metrics=found)
