"""Which sets live in the memory of the device that trains, and how much of it they take. No torch here."""

from __future__ import annotations

from ..spec import AugmentSpec, DataSpec
from ..spec.base import pair

MOST = 2**30
"""So many bytes of pixels of a set of files at most are kept in memory: 7,000 images at 224 pixels, 350,000 at 32. More
would crowd the model on a small GPU, and take long to prepare while nothing is trained."""

_BYTES = {"digits": 3 * 4, "fractals": 1}  # of a pixel: three floats; grey


def is_streamed(spec: DataSpec, augment: AugmentSpec | None) -> bool:
    """Return whether images are read from their files again and again.

    A small set of files lives in memory, prepared for judging. Random crops are not cut from what is prepared: they are
    of the whole image in its own size. Nor do policies work there, which vary one image at a time, on the CPU.
    """
    varied = augment is not None and (augment.crop is not None or augment.auto is not None)
    return spec.on_disk and (varied or _bytes(spec) > MOST)


def bytes_in_memory(spec: DataSpec, augment: AugmentSpec | None) -> int:
    """Return how many bytes of the device's memory the images of a set take, for a recipe that varies them so."""
    return 0 if is_streamed(spec, augment) else _bytes(spec)


def _bytes(spec: DataSpec) -> int:
    height, width = pair(spec.image_size)
    return sum(spec.part_sizes) * height * width * _BYTES.get(spec.name, 3)
