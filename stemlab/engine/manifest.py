"""What a study ran on: versions, hardware, commit."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from .slots import cores, find_gpus

PACKAGES = ("stemlab", "torch", "torchvision", "timm", "einops", "nni", "numpy", "scikit-learn", "pydantic")


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that decide results; None where one is missing."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def hardware() -> dict[str, Any]:
    """Return processor, usable cores, memory in GiB and GPUs."""
    return {
        "cpu": _processor(),
        "cores": cores(),
        "memory_gib": _memory(),
        "gpus": [{"index": gpu.index, "name": gpu.name, "memory_mib": gpu.memory_mib} for gpu in find_gpus()],
        "system": platform.platform(),
    }


def commit() -> str | None:
    """Return the commit of the stemlab checkout that runs, None for an installed package."""
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _memory() -> float | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemTotal"):
                return round(int(line.split()[1]) / 2**20, 1)
    except OSError:
        pass  # not Linux
    return None
