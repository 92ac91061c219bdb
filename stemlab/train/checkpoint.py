"""The state of a trial that is to go on later, in one file: whole or not there at all, and never code.

A safetensors file: weights, buffers, optimizer states and the state of the generator that orders the images are its
tensors; where the schedule stands, the curve and whatever else is a number is one JSON document in its header.
"""

from __future__ import annotations

import json
import os
import zlib
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file

from ..records import STATE
from ..spec import TrialSpec

_FORMAT = "1"

Tensors = dict[str, torch.Tensor]


class Checkpoint:
    """The place where one trial keeps its state: `<keep>/<digest>/checkpoint.safetensors`.

    One process at a time may write it. What another trial, another version of torch, timm or stemlab, a device of
    another kind or another number of processes has left there is not taken up, nor is a file that is not as it was
    written.
    """

    def __init__(self, keep: Path, trial: TrialSpec, device: str, processes: int = 1) -> None:
        self.path = keep / trial.digest / STATE
        versions = " ".join(f"{name} {metadata.version(name)}" for name in ("stemlab", "torch", "timm"))
        self._stamp = {
            "format": _FORMAT,
            "trial": trial.digest,
            "made_by": f"{versions} {torch.device(device).type} {processes}",
        }

    def load(self) -> tuple[Tensors, dict[str, Any]] | None:
        """Return tensors (on the CPU) and document; None where there is nothing to go on from."""
        try:
            with safetensors.safe_open(self.path, framework="pt") as file:
                stamp = file.metadata() or {}
                if any(stamp.get(name) != value for name, value in self._stamp.items()):
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            if stamp.get("sum") != _sum(tensors, stamp["state"]):
                return None
            return tensors, json.loads(stamp["state"])
        except (OSError, KeyError, ValueError, safetensors.SafetensorError):
            return None

    def save(self, tensors: Tensors, document: dict[str, Any]) -> None:
        """Put this state in the place of what was there; it is on the disk once this returns. OSError if it cannot."""
        state = json.dumps(document, allow_nan=False)
        # Copies: what shares its memory cannot be saved otherwise.
        own = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{STATE}")
        try:
            save_file(own, temporary, {**self._stamp, "state": state, "sum": _sum(own, state)})
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from None
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def remove(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def _sum(tensors: Tensors, state: str) -> str:
    """Return a checksum of all that is in the file."""
    found = zlib.crc32(state.encode())
    for name in sorted(tensors):
        found = zlib.crc32(tensors[name].flatten().view(torch.uint8).numpy().data, zlib.crc32(name.encode(), found))
    return f"{found:08x}"
