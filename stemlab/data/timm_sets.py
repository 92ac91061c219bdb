"""The sets that timm's `create_dataset` reads, as far as their images can be asked for one by one."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import SpecError
from ..spec.data import Contents, DataSpec
from .cache import Arrays
from .images import decode, to_rgb
from .parts import parts

ROOT = "STEMLAB_DATA"
"""The environment variable that says in which folder the sets of timm lie; `data` where there is none."""

_HELD_OUT = ("validation", "test")


class TimmSet:
    """The images of a set, those of its parts one behind the other, by their place. Nothing is downloaded."""

    def __init__(self, train: Any, held_out: Sequence[Any]) -> None:
        """Take the training part and what is held out: nothing, a test part, or a validation and a test part."""
        self._datasets = [train, *held_out]
        self._ends = np.cumsum([len(dataset) for dataset in self._datasets])
        self.labels = np.concatenate([_labels(dataset) for dataset in self._datasets])
        self._held_out = len(held_out)

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, place: int) -> Image.Image:
        """Return an image in three bytes a pixel."""
        which = int(np.searchsorted(self._ends, place, side="right"))
        dataset, inside = self._datasets[which], int(place - (self._ends[which - 1] if which else 0))
        if hasattr(dataset, "reader"):  # timm's own opening of files clips numbers of 16 bits
            file, _ = dataset.reader[inside]
            with file:
                return decode(file.read())[0]
        return to_rgb(dataset[inside][0])[0]

    @property
    def own(self) -> list[NDArray[np.int64]]:
        """The places of its own parts; empty where it has none."""
        train, *held_out = np.split(np.arange(len(self)), self._ends[:-1])
        none = np.arange(0)
        return [train, *{0: (none, none), 1: (none, *held_out), 2: held_out}[self._held_out]]

    @property
    def contents(self) -> Contents:
        """What a study keeps of it."""
        train, validation, test = map(len, self.own)
        return Contents(
            classes=int(self.labels.max()) + 1,
            train=train,
            validation=validation or None,
            test=test or None,
            listing=hashlib.sha256(self.labels.tobytes()).hexdigest()[:16],
        )

    def parts(self, spec: DataSpec) -> Arrays:
        """Return the places of the images of `train`, `validation` and `test`."""
        return parts(self.labels, spec, self.own)


@functools.lru_cache(maxsize=2)
def read(name: str) -> TimmSet:
    """Return a set by timm's name of it; SpecError where it is not there, or can only be streamed."""
    kind = name.split("/")[0]
    if kind in ("wds", "tfds"):
        raise SpecError(
            f"{name}: timm reads such sets as a stream, and a study asks for images one by one, in an order of its "
            "own; write the images into a folder for each class and use folder:PATH"
        )
    # Hugging Face's library downloads what is not there, unless it was told not to before it is imported.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    train = _part(name, "train")
    if kind == "torch":
        return TimmSet(train, [_part(name, "validation")])
    held_out = [_part(name, part) for part in _HELD_OUT if part in _splits(train)]
    return TimmSet(train, held_out)


def _part(name: str, part: str) -> Any:
    from timm.data import create_dataset

    root = Path(os.environ.get(ROOT) or "data").expanduser().absolute()
    try:
        return create_dataset(name, root=str(root), split=part, download=False)
    except ImportError as error:
        raise SpecError(f"{name}: timm needs a package that is not installed: {error}") from None
    except Exception as error:  # each library has errors of its own
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise SpecError(
            f"{name}: timm finds no {part} part of it in {root} ({words[0]}); the environment variable {ROOT} says "
            "where sets lie, and nothing is downloaded"
        ) from None


def _splits(dataset: Any) -> Sequence[str]:
    """Return the names of the parts that a set of Hugging Face's has."""
    found: Sequence[str] = list(getattr(dataset.reader.dataset.info, "splits", None) or ())
    return found


def _labels(dataset: Any) -> NDArray[np.int64]:
    """Return the class of each image, without decoding them where the set knows."""
    known = getattr(dataset, "targets", None)
    if known is None:
        reader = getattr(dataset, "reader", None)
        known = [label for _, label in dataset] if reader is None else reader.dataset[reader.label_key]
    return np.asarray(known, np.int64).reshape(len(dataset))
