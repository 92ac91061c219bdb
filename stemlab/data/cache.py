"""What is slow to make of a data set is made once on a machine, and read from then on."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save_file

from ..errors import StemlabError
from ..spec.files import replacing

Arrays = dict[str, NDArray[Any]]


def folder() -> Path:
    """Return where stemlab keeps such things: the environment's STEMLAB_CACHE, or ~/.cache/stemlab."""
    return Path(os.environ.get("STEMLAB_CACHE") or Path.home() / ".cache" / "stemlab")


def kept(name: str, make: Callable[[], Arrays]) -> Arrays:
    """Return what is kept under a name; if there is nothing, or it is not as it was written, make it and keep it.

    All processes that read it share its memory; what one of them changes, it alone sees. One process makes it while
    others wait. Where nothing can be written, it is made each time.
    """
    path = folder() / "data" / f"{name}.safetensors"
    found = _read(path)
    if found is None:
        with _alone(name):
            found = _read(path) or _made(path, make)
    return found


def _made(path: Path, make: Callable[[], Arrays]) -> Arrays:
    made = {name: np.ascontiguousarray(array) for name, array in make().items()}
    with contextlib.suppress(OSError, StemlabError, safetensors.SafetensorError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(path) as temporary:
            save_file(made, temporary, {"sum": _sum(made)})
    return made


def _read(path: Path) -> Arrays | None:
    try:
        with safetensors.safe_open(path, framework="np") as file:
            named = [(name, file.get_slice(name)) for name in file.offset_keys()]
            arrays = _mapped(path, {name: (_kind(array.get_dtype()), array.get_shape()) for name, array in named})
            return arrays if (file.metadata() or {}).get("sum") == _sum(arrays) else None
    except (OSError, ValueError, safetensors.SafetensorError):
        return None


def _kind(code: str) -> np.dtype[Any]:
    """Return numpy's kind of number for one of safetensors': U8, I64, F32, BOOL."""
    return np.dtype(bool if code == "BOOL" else f"{code[0].lower()}{int(code[1:]) // 8}")


def _mapped(path: Path, kinds: dict[str, tuple[np.dtype[Any], list[int]]]) -> Arrays:
    """Return the arrays of a file, which end it one behind the other, without a copy of them."""
    content = np.memmap(path, np.uint8, "c")
    sizes = [kind.itemsize * int(np.prod(shape)) for kind, shape in kinds.values()]
    parts = np.split(content[len(content) - sum(sizes) :], np.cumsum(sizes)[:-1])
    each = zip(kinds.items(), parts, strict=True)
    return {name: np.asarray(part).view(kind).reshape(shape) for (name, (kind, shape)), part in each}


def _sum(arrays: Arrays) -> str:
    """Return a checksum of names, kinds and contents of contiguous arrays."""
    found = 0
    for name, array in sorted(arrays.items()):
        found = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), found)
        found = zlib.crc32(array.data, found)
    return f"{found:08x}"


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """Let one process at a time make what is kept under a name, where there can be locks."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError, NotImplementedError):
            locks = folder() / "locks"
            locks.mkdir(parents=True, exist_ok=True, mode=0o700)
            held.enter_context(filelock.FileLock(locks / f"{name}.lock"))
        yield
