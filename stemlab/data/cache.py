"""What is slow to make of a data set is made once on a machine, and read from then on."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save

from ..errors import StemlabError
from ..spec.files import write_bytes

Arrays = dict[str, NDArray[Any]]


def folder() -> Path:
    """Return where stemlab keeps such things: the environment's STEMLAB_CACHE, or ~/.cache/stemlab."""
    return Path(os.environ.get("STEMLAB_CACHE") or Path.home() / ".cache" / "stemlab")


def kept(name: str, make: Callable[[], Arrays]) -> Arrays:
    """Return what is kept under a name; if there is nothing, or it is not as it was written, make it and keep it.

    Where nothing can be written, it is made each time.
    """
    path = folder() / "data" / f"{name}.safetensors"
    found = _read(path)
    if found is None:
        found = {each: np.ascontiguousarray(array) for each, array in make().items()}
        with contextlib.suppress(OSError, StemlabError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_bytes(path, save(found, {"sum": _sum(found)}))
    return found


def _read(path: Path) -> Arrays | None:
    try:
        with safetensors.safe_open(path, framework="np") as file:
            arrays: Arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            return arrays if (file.metadata() or {}).get("sum") == _sum(arrays) else None
    except (OSError, ValueError, safetensors.SafetensorError):
        return None


def _sum(arrays: Arrays) -> str:
    """Return a checksum of names, kinds and contents of contiguous arrays."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        found.update(array.data)
    return found.hexdigest()
