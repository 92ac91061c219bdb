"""The energy that a device says it has used: joules since a start, where the machine tells."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch

POWERCAP = Path("/sys/class/powercap")
"""Where Linux keeps the energy counters of processors (RAPL). Mostly the administrator alone may read them."""


class EnergyMeter(Protocol):
    """A counter of joules."""

    def start(self) -> None:
        """Count from here."""

    def joules(self) -> float:
        """Return the joules since the start."""


def energy_meter(device: str) -> EnergyMeter | None:
    """Return the counter of a device, None where it does not tell.

    What it counts is all that the device does: a whole GPU, or all processors of the machine without their memory.
    """
    if torch.device(device).type == "cuda":
        return Nvml.of(device)
    return Rapl.found(POWERCAP)


class Rapl:
    """The counters of all processor packages, in microjoules; each begins anew at its range."""

    def __init__(self, ranges: dict[Path, int]) -> None:
        self._ranges = ranges
        self.start()

    @classmethod
    def found(cls, folder: Path) -> Rapl | None:
        """Return the counters below a folder, None where there are none or they may not be read."""
        try:
            ranges = {
                zone / "energy_uj": int((zone / "max_energy_range_uj").read_text())
                for zone in folder.glob("intel-rapl:*")
                if zone.name.count(":") == 1  # those with two colons are parts of a package
            }
            return cls(ranges) if ranges else None
        except (OSError, ValueError):
            return None

    def start(self) -> None:
        """Count from here."""
        self._began = self._read()

    def joules(self) -> float:
        """Return the joules since the start."""
        spent = ((now - self._began[file]) % self._ranges[file] for file, now in self._read().items())
        return sum(spent) / 1e6

    def _read(self) -> dict[Path, int]:
        return {file: int(file.read_text()) for file in self._ranges}


class Nvml:
    """The counter of an NVIDIA GPU (Volta or later), in millijoules, by NVIDIA's library and its package pynvml."""

    def __init__(self, nvml: object, handle: object) -> None:
        self._nvml, self._handle = nvml, handle
        self.start()

    @classmethod
    def of(cls, device: str) -> Nvml | None:
        """Return the counter of one of torch's GPUs, None where pynvml is missing or the GPU has none."""
        try:
            import pynvml

            pynvml.nvmlInit()
            # By its UUID: CUDA_VISIBLE_DEVICES changes torch's numbers and not NVML's.
            uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
            return cls(pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid))
        except Exception:  # a missing package, a GPU without a counter, one that may not be asked
            return None

    def start(self) -> None:
        """Count from here."""
        self._began = self._read()

    def joules(self) -> float:
        """Return the joules since the start."""
        return (self._read() - self._began) / 1e3

    def _read(self) -> int:
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))  # type: ignore[attr-defined]
