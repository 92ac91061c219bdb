"""What this machine can do for stemlab, tried rather than assumed."""

from __future__ import annotations

import shutil
from typing import Any

from ..errors import EngineError
from ..spec import SearchSettings
from ..spec.files import Document
from ..spec.search import NNI_TUNERS, OPTUNA_TUNERS, REFUSED_TUNERS
from . import manifest, tuners

_TOY = {"x": {"uniform": [0.0, 1.0]}, "kind": {"choice": ["a", {"b": {"choice": [1, 2, 3]}}]}}


def checkup() -> dict[str, Any]:
    """Return versions, hardware, what torch sees, tuners, free disk in GiB, and problems with their cures."""
    problems: list[str] = []
    versions = manifest.versions()
    problems += [f"{name} is missing: pip install {name}" for name, version in versions.items() if version is None]
    if versions["nni"] not in (None, "3.0"):
        problems.append(f"nni {versions['nni']}: stemlab was tried with 3.0; pip install nni==3.0")
    hardware = manifest.hardware()
    torch_sees = _torch(problems)
    if hardware["gpus"] and "cuda" not in torch_sees:
        problems.append("nvidia-smi lists GPUs but torch sees none: install a torch build with CUDA for your driver")
    free = round(shutil.disk_usage(".").free / 2**30, 1)
    if free < 1:
        problems.append(f"only {free} GiB of disk are free in this folder")
    return {
        "versions": versions,
        "hardware": hardware,
        "torch": torch_sees,
        "tuners": _tuners(problems),
        "disk_free_gib": free,
        "problems": problems,
    }


def _torch(problems: list[str]) -> str:
    try:
        import torch
        import torchvision  # noqa: F401
    except Exception as error:
        problems.append(f"torch and torchvision do not import together ({error}): pip install torch torchvision")
        return "nothing"
    count = torch.cuda.device_count()
    return f"cuda, {count} devices" if count else "cpu"


def _tuners(problems: list[str]) -> dict[str, str]:
    """Return of every tuner whether it works; those of Optuna are optional."""
    found = {}
    for name in (*NNI_TUNERS, *OPTUNA_TUNERS):
        try:
            _try(name)
            found[name] = "works"
        except Exception as error:
            found[name] = f"fails: {error}"
            if name in OPTUNA_TUNERS and isinstance(error, EngineError):
                found[name] = f"optional: {error}"
            else:
                problems.append(f"the tuner {name} fails: {type(error).__name__}: {error}")
    return {**found, **{name: f"does not run: {reason}" for name, reason in REFUSED_TUNERS.items()}}


def _try(name: str) -> None:
    """Run a tuner for a few steps over a small nested space."""
    from ..space import find

    tuner = tuners.start(SearchSettings(tuner=name), find(Document(_TOY, "toy")))
    for _ in range(8):
        answer = tuner.ask()
        if answer is None:
            return
        handle, point = answer
        tuner.tell(handle, (float(point["x"]),), (0.0,))
