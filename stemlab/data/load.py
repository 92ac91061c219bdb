"""A data set by its spec, as tensors or files that a model can be trained on."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from ..errors import StemlabError
from ..spec import AugmentSpec, DataSpec
from ..spec.base import pair
from ..spec.data import FOLDER
from . import contents
from .cache import Arrays
from .digits import load_digits
from .folder import survey
from .fractals import fractals
from .images import BadImage, open_rgb
from .memory import is_streamed
from .pixels import pixels
from .split import MemoryPart, Splits, grey
from .stream import CROP, Source, StreamPart


def load(spec: DataSpec, device: str = "cpu", augment: AugmentSpec | None = None) -> Splits:
    """Return the parts of a data set, for a model that trains on this device; `augment` varies the training part."""
    if spec.on_disk:
        contents.require(spec)
        if is_streamed(spec, augment):
            return _stream(spec, device, augment)
    whole = load_files if spec.on_disk else load_fractals if spec.name == "fractals" else load_digits
    found = whole(spec, device)
    if augment is not None and isinstance(found.train, MemoryPart):
        return replace(found, train=replace(found.train, augment=augment))
    return found


def forget() -> None:
    """Let go of the sets that are kept in memory from one trial to the next."""
    load_digits.cache_clear()
    load_fractals.cache_clear()
    load_files.cache_clear()
    _on_disk.cache_clear()


@functools.lru_cache(maxsize=2)
def load_fractals(spec: DataSpec, device: str = "cpu") -> Splits:
    """Return fractals, normalised by the training part's mean and deviation."""
    raw = fractals(spec)
    mean, square = raw["moments"][raw["train"]].mean(axis=0).tolist()
    deviation = math.sqrt(square - mean**2)
    return _in_memory(raw["images"], raw["labels"], raw, device, mean, deviation, grey(mean, deviation))


@functools.lru_cache(maxsize=2)
def load_files(spec: DataSpec, device: str = "cpu") -> Splits:
    """Return a small set of files, prepared for judging, in memory: the images that a stream gives."""
    source, places = _on_disk(spec)
    key = source.key if isinstance(source, Files) else None
    images = pixels(source, pair(spec.image_size), key)
    mean, deviation = (torch.tensor(_SEEN[name], device=device).view(3, 1, 1) for name in ("mean", "std"))
    return _in_memory(images, source.labels, places, device, mean, deviation, _SEEN)


def _in_memory(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    places: Arrays,
    device: str,
    mean: float | torch.Tensor,
    deviation: float | torch.Tensor,
    seen: dict[str, Any],
) -> Splits:
    """Return the parts of a set whose bytes are on the device once, for all parts."""
    there, of = torch.from_numpy(images).to(device), torch.from_numpy(labels)

    def part(name: str) -> MemoryPart:
        own = torch.from_numpy(places[name])
        return MemoryPart(there, of[own].to(device), mean, deviation, places=own.to(device))

    return Splits(part("train"), part("validation"), part("test"), seen)


def _stream(spec: DataSpec, device: str, augment: AugmentSpec | None) -> Splits:
    source, places = _on_disk(spec)
    size = pair(spec.image_size)
    train, validation, test = (
        StreamPart(source, places[name], size, device, augment if name == "train" else None)
        for name in ("train", "validation", "test")
    )
    return Splits(train, validation, test, _SEEN)


_SEEN = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD, "crop_pct": CROP, "interpolation": "bicubic"}


@functools.lru_cache(maxsize=2)
def _on_disk(spec: DataSpec) -> tuple[Source, Arrays]:
    """Return the images of a set and the places of its parts; StemlabError where it is not the one of the spec."""
    if spec.name.startswith(FOLDER):
        found = survey(spec.name)
        contents.check(spec, found.contents)
        return Files(found.root, found.key, found.names, found.labels), found.parts(spec)
    from .timm_sets import read

    images = read(spec.name)
    contents.check(spec, images.contents)
    return images, images.parts(spec)


@dataclass(frozen=True)
class Files:
    """The images of a folder by their places: their names below `root`, their classes, and the key of the survey."""

    root: Path
    key: str
    names: tuple[str, ...]
    labels: NDArray[np.int64]

    def image(self, place: int) -> Image.Image:
        """Return an image in three bytes a pixel."""
        path = self.root / self.names[place]
        try:
            return open_rgb(path)
        except BadImage as bad:
            raise StemlabError(f"{path}: {bad}, though it was an image when the study was made") from None
