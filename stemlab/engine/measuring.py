"""What models take on this machine, measured in turn: each in a process of its own, by its Meter.

`python -m stemlab.engine.measuring` is such a process: what to measure comes on stdin and what was found goes to
stdout, one JSON document a line.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import IO, Any

import numpy as np
from scipy import stats

from ..errors import EngineError, SpecError, one_of, short
from ..spec import ModelSpec
from ..spec.base import LARGEST
from .manifest import hardware
from .slots import cores
from .worker_process import Spawned, WorkerDied, tail

MODES = ("inference", "training")
PRECISIONS = ("fp32", "bf16")

ROUNDS, FEWEST = 12, 6
"""How often the models have their turns, and how often where that takes long: fewer give no 95 % interval."""


@dataclass(frozen=True)
class Range:
    """A median over rounds and its 95 % interval, by order statistics: as if rounds were independent."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Range:
        """Return that of at least 6 values, one a round."""
        low, high = stats.quantile_test(values, q=median(values), p=0.5).confidence_interval(0.95)
        return cls(median(values), float(low), float(high))


@dataclass(frozen=True)
class Times:
    """Milliseconds of a call: the median, the 90th percentile, and of how many repeats."""

    ms: Range
    p90_ms: float
    repeats: int


@dataclass(frozen=True)
class ModeCost:
    """What a model takes in one mode.

    `latency` is of one image, `batch_time` of `batch` images. `peak_bytes` is the most memory that was in use: of
    tensors on a GPU; on a CPU of the whole process, of which `bytes_before` were Python's and torch's own. `joules` are
    those of one image in a batch, of all that the device did meanwhile. Both are None where the machine does not tell.
    `processor_ms` is what CPUs worked on one image in a batch, all threads together: other work on the machine, which
    makes the other times longer, hardly changes it with one thread; more threads count their waiting for each other.
    `ratio` and `latency_ratio` are the times over those of the first model, round by round; None for itself.
    """

    latency: Times
    batch: int
    batch_time: Times
    images_per_second: Range
    peak_bytes: int | None
    bytes_before: int
    joules: float | None
    processor_ms: Range
    ratio: Range | None
    latency_ratio: Range | None


@dataclass(frozen=True)
class Measured:
    """What a model takes in both modes, and where.

    `machine` names the processor, its `cores` and their `load` when it began (processes that wanted to run, on average
    over a minute: times mean little where they are more than cores), the `gpu` (None where the CPU computed), the
    `threads`, `torch`'s version and the `precision`.
    """

    machine: dict[str, Any]
    inference: ModeCost
    training: ModeCost

    def as_dict(self) -> dict[str, Any]:
        """Return the form of `stemlab cost --measure --json`."""
        return asdict(self)


def measure(
    models: Sequence[ModelSpec], batch: int, device: str | None, precision: str, threads: int | None, seconds: float
) -> tuple[Measured, ...]:
    """Return what matched models take, measured in turn (A, B, A, B, ...); see stemlab.measure.

    SpecError for values that cannot be right, EngineError where a model cannot be measured on this machine.
    """
    _check(batch, device, precision, threads, seconds)
    jobs = [{"model": m.canonical(), "device": device, "precision": precision} for m in models]
    found = list[list[ModeCost]]()
    machine = {"cpu": hardware()["cpu"], "cores": cores(), "load": os.getloadavg()[0], "precision": precision}
    for mode in MODES:
        with contextlib.ExitStack() as stack:
            meters = [stack.enter_context(contextlib.closing(_Meter({**job, "mode": mode}, threads))) for job in jobs]
            machine |= meters[0].ask("machine")
            found.append(_mode(meters, batch, seconds))
    return tuple(Measured(machine, inference, training) for inference, training in zip(*found, strict=True))


def _check(batch: int, device: str | None, precision: str, threads: int | None, seconds: float) -> None:
    for name, value in (("batch", batch), ("threads", threads)):
        if value is not None and not (type(value) is int and 1 <= value <= LARGEST):
            raise SpecError(f"{name} (={short(value)}): expected a whole number from 1 to {LARGEST}")
    if not (isinstance(seconds, (int, float)) and 0 < seconds < math.inf):
        raise SpecError(f"seconds (={short(seconds)}): expected a number above 0")
    if precision not in PRECISIONS:
        raise SpecError(f"precision (={short(precision)}): expected {one_of(PRECISIONS)}")
    if device is not None and not re.fullmatch(r"cpu|cuda(:\d+)?", str(device)):
        raise SpecError(f"device (={short(device)}): expected cpu, cuda or cuda:1")


def _mode(meters: Sequence[_Meter], batch: int, seconds: float) -> list[ModeCost]:
    batch = _largest(meters, batch)
    one = _rounds(meters, 1, seconds)
    many = one if batch == 1 else _rounds(meters, batch, seconds)
    return [
        ModeCost(
            latency=_times(one[index]),
            batch=batch,
            batch_time=times,
            images_per_second=_rate(batch, times.ms),
            **meter.ask("memory"),
            joules=None if many[index][0]["joules"] is None else median(turn["joules"] for turn in many[index]),
            processor_ms=Range.of([1000 * turn["processor_seconds"] for turn in many[index]]),
            ratio=_ratio(many[index], many[0]) if index else None,
            latency_ratio=_ratio(one[index], one[0]) if index else None,
        )
        for index, (meter, times) in enumerate(zip(meters, map(_times, many), strict=True))
    ]


def _rate(batch: int, ms: Range) -> Range:
    return Range(1000 * batch / ms.median, 1000 * batch / ms.high, 1000 * batch / ms.low)


def _largest(meters: Sequence[_Meter], batch: int) -> int:
    """Return the batch, halved until all have memory for it.

    Found from below, so that nothing is tried that does not fit: a CPU's memory may be others' as well.
    """
    sizes = [batch]
    while sizes[0] > 1:
        sizes.insert(0, sizes[0] // 2)
    fitting = 0
    for size, larger in zip(sizes, [*sizes[1:], sizes[-1]], strict=True):
        if not all(meter.ask("fits", size) for meter in meters):
            break
        fitting = size
        if not all(meter.ask("room", larger) for meter in meters):
            break
    if not fitting:
        raise EngineError("there is too little memory for one image at a time")
    return fitting


def _rounds(meters: Sequence[_Meter], batch: int, seconds: float) -> list[list[dict[str, Any]]]:
    """Return what each model took in each round; the first round is for warming up and is left out."""
    rounds, spent = list[list[dict[str, Any]]](), 0.0
    while len(rounds) <= FEWEST or (len(rounds) <= ROUNDS and spent < seconds * len(meters)):
        rounds.append([meter.ask("repeat", batch, seconds / ROUNDS) for meter in meters])
        spent += sum(sum(turn["seconds"]) for turn in rounds[-1])
    return [list(turns) for turns in zip(*rounds[1:], strict=True)]


def _times(turns: Sequence[dict[str, Any]]) -> Times:
    repeats = [1000 * value for turn in turns for value in turn["seconds"]]
    middles = [1000 * median(turn["seconds"]) for turn in turns]
    return Times(Range.of(middles), float(np.quantile(repeats, 0.9)), len(repeats))


def _ratio(turns: Sequence[dict[str, Any]], first: Sequence[dict[str, Any]]) -> Range:
    """Return the times over the first model's, whose turn was just before: both met the same machine."""
    pairs = zip(turns, first, strict=True)
    return Range.of([median(own["seconds"]) / median(other["seconds"]) for own, other in pairs])


class _Meter:
    """A Meter in a process of its own, which is asked one question at a time."""

    def __init__(self, job: dict[str, Any], threads: int | None) -> None:
        limits = {} if threads is None else dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process = Spawned([sys.executable, "-P", "-m", "stemlab.engine.measuring"], self._log, limits)
        self._send(job)

    def ask(self, question: str, *values: float) -> Any:
        """Return the answer of one of the Meter's methods; EngineError if there is none."""
        self._send([question, *values])
        line = self._process.stdout.readline()
        if not line:
            raise self._death()
        return json.loads(line)

    def close(self) -> None:
        """Kill it and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(OSError):  # the pipe broke with the process
                stream.close()

    def _send(self, document: object) -> None:
        try:
            self._process.stdin.write(json.dumps(document).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._death() from None

    def _death(self) -> EngineError:
        died = WorkerDied(self._process.wait(), tail(self._log), was_ready=True)
        last = died.log.splitlines()[-1:] or ["it said nothing"]
        return EngineError(f"the model could not be measured ({died.reason}): {last[0]}")


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no answer
    lines = (json.loads(line) for line in sys.stdin)
    for answer in _answers(lines):
        print(json.dumps(answer), file=answers, flush=True)


def _answers(lines: Iterator[Any]) -> Iterator[Any]:
    import torch

    from ..train.measure import Meter

    job = next(lines)
    device = job["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
    meter = Meter(ModelSpec.model_validate(job["model"]), job["mode"], device, job["precision"])
    for question, *values in lines:
        yield getattr(meter, question)(*values)


if __name__ == "__main__":
    _serve()
