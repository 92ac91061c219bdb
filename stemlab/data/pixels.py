"""Small sets of files are prepared for judging once, and live in memory from then on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

import numpy as np
from numpy.typing import NDArray

from ..spec import AugmentSpec, DataSpec
from ..spec.base import pair
from .cache import kept
from .stream import Source, evaluation

MOST = 2**30
"""So many bytes of pixels at most are kept in memory: a set of 7,000 images at 224 pixels, or of 350,000 at 32. More
would crowd the model on a small GPU, and take long to prepare while nothing is trained."""

_AT_A_TIME = 1024


def fits(spec: DataSpec) -> bool:
    """Return whether a set is small enough to live in memory."""
    height, width = pair(spec.image_size)
    return sum(spec.part_sizes) * 3 * height * width <= MOST


def needs_files(augment: AugmentSpec | None) -> bool:
    """Return whether a recipe varies what images that are prepared for judging have no more, or what timm varies one by
    one: random crops are of the whole image in its own size, and policies are for bytes on the CPU."""
    return augment is not None and (augment.crop is not None or augment.auto is not None)


def pixels(source: Source, size: tuple[int, int], key: str | None) -> NDArray[np.uint8]:
    """Return all images (n, 3, H, W) of a source as they are judged. With a key they are kept for other processes."""
    if key is None:
        return _prepared(source, size)
    versions = " ".join(f"{name} {metadata.version(name)}" for name in ("timm", "torchvision", "pillow"))
    name = hashlib.sha256(f"{key} {size} {versions}".encode()).hexdigest()[:32]
    return kept(f"pixels-{name}", lambda: {"images": _prepared(source, size)})["images"]


def _prepared(source: Source, size: tuple[int, int]) -> NDArray[np.uint8]:
    prepare = evaluation(size)
    images = np.empty((len(source.labels), 3, *size), np.uint8)

    def one(place: int) -> None:
        images[place] = prepare(source.image(place)).numpy()

    with ThreadPoolExecutor() as pool:
        places: Sequence[int] = range(len(images))
        for start in range(0, len(images), _AT_A_TIME):
            for _ in pool.map(one, places[start : start + _AT_A_TIME]):
                pass
    return images
