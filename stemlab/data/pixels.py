"""Small sets of files are prepared for judging once, and live in memory from then on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

import numpy as np
from numpy.typing import NDArray

from .cache import kept
from .stream import Source, evaluation

_AT_A_TIME = 1024


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
