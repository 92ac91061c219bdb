"""What a model takes, measured: time of an inference or a training step, memory and energy, for noise as images."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from torch.nn import functional as F

from ..builders import build_model
from ..builders.hub import without_weights
from ..spec import ModelSpec, TrainSpec
from ..spec.base import pair
from . import recipe
from .energy import energy_meter
from .run import autocast

Mode = Literal["inference", "training"]

_USABLE = 0.9
"""The share of the free memory that is filled, as on a GPU (docs/gpus.md)."""


def timed(work: Callable[[], object], device: str) -> float:
    """Return the seconds that a call takes, whose work on a GPU is waited for."""
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if on_gpu:
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


class Meter:
    """A model at work in one mode; one a process, for memory is counted by process.

    `model` is matched already. A training step is a forward and a backward pass and AdamW's update, by noise and random
    labels; an inference is a forward pass without gradients.
    """

    def __init__(self, model: ModelSpec, mode: Mode, device: str, precision: Literal["fp32", "bf16"]) -> None:
        self.device, self.on_gpu = device, torch.device(device).type == "cuda"
        self.before = 0 if self.on_gpu else psutil.Process().memory_info().rss
        self.spec = TrainSpec(precision=precision)
        self.model = build_model(without_weights(model), seed=0).to(device).train(mode == "training")
        self.size, self.classes = pair(model.image_size), model.classes
        self.optimizer = recipe.optimizer(self.model, self.spec)
        self._once = self._step if mode == "training" else self._infer
        self.energy = energy_meter(device)
        self.images = self.labels = torch.empty(0)
        self._fill(1)

    def machine(self) -> dict[str, Any]:
        """Return what times depend on: the device, torch's version and its CPU threads."""
        name = torch.cuda.get_device_name(self.device) if self.on_gpu else None
        return {"gpu": name, "torch": torch.__version__, "threads": torch.get_num_threads()}

    def fits(self, batch: int) -> bool:
        """Work on a batch once; return whether a GPU's memory holds it. A CPU's is asked by `room`."""
        try:
            self._fill(batch)
            self._once(batch)
            return True
        except torch.cuda.OutOfMemoryError:
            pass  # the error's traceback holds what has to go, until here
        self._fill(1)
        return False

    def room(self, batch: int) -> bool:
        """Return whether the machine has memory for a batch, judged by the one that was worked on last."""
        peak = self._peak()
        if self.on_gpu or peak is None:
            return True  # a GPU says so when it has none
        now = psutil.Process().memory_info().rss
        free = psutil.virtual_memory().available + now - self.before
        return bool((peak - self.before) * batch / len(self.images) <= _USABLE * free)

    def repeat(self, batch: int, seconds: float) -> dict[str, Any]:
        """Work on a batch again and again for some seconds; return the seconds of each time.

        With them the joules and the seconds of processors (of all threads together) that one image took.

        The first time finds the caches cold and does not count, unless there is time for no other.
        """
        if batch != 1:
            self._fill(batch)
        if self.energy:
            self.energy.start()
        times, began = list[float](), time.process_time()
        while sum(times) < seconds:
            times.append(timed(lambda: self._once(batch), self.device))
        images = len(times) * batch
        return {
            "seconds": times[1:] or times,
            "processor_seconds": (time.process_time() - began) / images,
            "joules": self.energy.joules() / images if self.energy else None,
        }

    def memory(self) -> dict[str, int | None]:
        """Return the largest number of bytes in use so far, and those of the process before there was a model.

        On a GPU those of tensors alone. None on a machine that does not tell (Linux does).
        """
        return {"peak_bytes": self._peak(), "bytes_before": self.before}

    def _peak(self) -> int | None:
        if self.on_gpu:
            return torch.cuda.max_memory_allocated(self.device)
        try:
            # Not getrusage's: there a process inherits the peak of the one that started it.
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        except OSError:
            pass
        return None

    def _fill(self, batch: int) -> None:
        """Make as many images as are worked on at a time, and forget what others took."""
        if len(self.images) == batch:
            return
        self.images = self.labels = torch.empty(0)
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        noise = torch.Generator().manual_seed(0)
        self.images = torch.randn(batch, 3, *self.size, generator=noise).to(self.device)
        self.labels = torch.randint(self.classes, (batch,), generator=noise).to(self.device)

    def _infer(self, batch: int) -> None:
        with torch.inference_mode(), autocast(self.spec, self.images):
            self.model(self.images[:batch])

    def _step(self, batch: int) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.spec, self.images):
            loss = F.cross_entropy(self.model(self.images[:batch]).float(), self.labels[:batch])
        loss.backward()
        self.optimizer.step()
