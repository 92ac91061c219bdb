"""Fractals: images made by formulas, for classes and at sizes without end (FractalDB, arXiv 2101.08515).

A class is a system of affine maps that draws a fractal. Its images are variations of that: one of the six parameters of
all its maps is up to 20% smaller or larger, and the image is turned a little, mirrored, and brighter or darker.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np
import psutil
from numpy.typing import NDArray

from ..errors import StemlabError
from ..spec import DataSpec
from ..spec.base import pair
from . import ifs
from .cache import Arrays, kept
from .parts import digest, parts

Progress = Callable[[int, int], None]

FEWEST, MOST = 2, 8
"""How many maps a system has."""
VARIED = 0.2
"""How much larger or smaller than its class's a parameter may be, as a part of it."""
TURNED = math.pi / 6
"""How far an image may be turned to either side."""
EMPTIEST, FULLEST = 0.2, 0.7
"""What share of an image of 64 by 64 pixels the fractals of a class fill."""
STRETCH = 0.95
"""The most that a map may lengthen anything: all must shrink."""
POINTS = 2
"""How many points are drawn for each pixel."""
BLOCK = 32
"""How many images are made at a time: more do not fit into the cache of a core."""
TASK = 256
"""How many images of a class are made by one thread, and are news of progress."""
SEED = 0
FORMULA = 1
"""Counted up whenever the same numbers give other images, as kept ones are then of no use."""


def fractals(spec: DataSpec, progress: Progress | None = None) -> Arrays:
    """Return grey `images` (n, H, W) from 0 to 255, `labels` (n,), and the places of the images of each part.

    `moments` (n, 2) are the mean of each image's pixels and of their squares, in units of the whole range.

    The images are one and the same for all splits. The split is stratified by class.
    """
    classes, total = spec.class_count, sum(spec.part_sizes)
    each, (height, width) = total // classes, pair(spec.image_size)
    count = f"{classes}x{each}"

    def make() -> Arrays:
        made = fractal_images(classes, each, (height, width), SEED, progress)
        flat = made.reshape(len(made), -1)
        moments = [[image.mean() / 255, np.square(image, dtype=np.float32).mean() / 255**2] for image in flat]
        return {"images": made, "moments": np.array(moments)}

    images = kept(f"fractals-{count}-{height}x{width}-formula{FORMULA}-seed{SEED}", make)
    labels = np.repeat(np.arange(classes), each)
    return {**images, "labels": labels, **kept(f"parts-{count}-{digest(spec)}", lambda: parts(labels, spec))}


def fractal_images(
    classes: int, images_per_class: int, size: tuple[int, int], seed: int, progress: Progress | None = None
) -> NDArray[np.uint8]:
    """Return grey images (classes * images_per_class, H, W), one class after the other.

    An image follows from the seed, its class's number and its own number in it: more classes or more images in a class
    change none of the others. `progress` gets how many images are made and how many there will be.
    """
    done, total = 0, classes * images_per_class
    _check_memory(f"{classes} x {images_per_class} fractals of {size[0]} x {size[1]} pixels", total * math.prod(size))
    images = np.empty((classes, images_per_class, *size), np.uint8)
    with ThreadPoolExecutor() as pool:
        tasks = [
            pool.submit(_draw, images[number, start : start + TASK], seed, number, start)
            for number in range(classes)
            for start in range(0, images_per_class, TASK)
        ]
        try:
            for task in as_completed(tasks):
                done += task.result()
                if progress:
                    progress(done, total)
        finally:
            pool.shutdown(cancel_futures=True)
    return images.reshape(total, *size)


def _check_memory(what: str, needed: int) -> None:
    free = psutil.virtual_memory().available
    if needed > free:
        raise StemlabError(f"{what} take {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free")


def _draw(images: NDArray[np.uint8], seed: int, number: int, start: int) -> int:
    """Draw the images (n, H, W) of a class from number `start` on; return how many they are."""
    height, width = images.shape[1:]
    system = class_system(seed, number)
    parts = ifs.addresses(system.shares, math.ceil(math.sqrt(POINTS * height * width)))
    # All numbers of an image come from its own row, whatever images are drawn with it.
    drawn = _random(seed, number, "images").random((start + len(images), 6))[start:]
    for first in range(0, len(images), BLOCK):
        block = slice(first, first + BLOCK)
        maps, peaks = _variations(system.maps, drawn[block])
        for image, counts, peak in zip(images[block], ifs.render(maps, parts, (height, width)), peaks, strict=True):
            tones = np.log1p(counts, dtype=np.float32)
            np.multiply(tones, peak / tones.max(), out=image, casting="unsafe")
    return len(images)


def class_system(seed: int, number: int) -> ifs.System:
    """Return the system of a class: the first drawn for it that draws well, however its parameters are varied."""
    random = _random(seed, number, "class")
    count = int(random.integers(FEWEST, MOST, endpoint=True))
    while True:
        system = ifs.draw(random, count)
        if _draws_well(system):
            return system


def _draws_well(system: ifs.System) -> bool:
    """Return whether a system and its utmost variations all shrink the plane, and draw neither dust nor a blot."""
    factors = np.ones((13, 6))
    factors[1:7][np.diag_indices(6)] = 1 - VARIED
    factors[7:][np.diag_indices(6)] = 1 + VARIED
    maps = system.maps * factors.reshape(-1, 1, 2, 3)
    if ifs.stretch(maps) > STRETCH:
        return False
    drawn = ifs.render(maps, ifs.addresses(system.shares, 91), (64, 64))
    return all(EMPTIEST <= np.count_nonzero(counts) / counts.size <= FULLEST for counts in drawn)


def _variations(maps: ifs.Floats, drawn: ifs.Floats) -> tuple[ifs.Floats, ifs.Floats]:
    """Return the maps (B, n, 2, 3) and the brightest tones (B,) of images, by what is drawn for each (B, 6)."""
    which, change, turn, *mirrored, bright = drawn.T
    factors = np.ones((len(drawn), 6))
    factors[np.arange(len(drawn)), (which * 6).astype(int)] += VARIED * (2 * change - 1)
    varied = maps * factors.reshape(-1, 1, 2, 3)
    view = ifs.rotation(TURNED * (2 * turn - 1)) * np.where(np.stack(mirrored, 1) < 0.5, -1, 1)[:, None]
    viewed = view[:, None] @ varied
    viewed[..., :2] = viewed[..., :2] @ view[:, None].swapaxes(2, 3)
    return viewed, 128 + 127 * bright


def _random(seed: int, number: int, purpose: str) -> np.random.Generator:
    key = (number, ("class", "images").index(purpose))
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
