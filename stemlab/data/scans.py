"""The scans of handwritten digits and how they are split, as arrays. No torch here: a study has them made while its
workers import it."""

from __future__ import annotations

import numpy as np

from ..spec import DataSpec
from .cache import Arrays, kept
from .parts import digest, parts


def scans(spec: DataSpec) -> Arrays:
    """Return `images` (n, 8, 8) from 0 to 16, `labels` (n,), and the places of the images of each part.

    The split is stratified by class and depends on spec.split_seed alone.
    """
    return kept(f"digits-{digest(spec)}", lambda: _split(spec))


def _split(spec: DataSpec) -> Arrays:
    from sklearn import datasets

    raw = datasets.load_digits()
    labels = raw.target.astype(np.int64)
    return {"images": raw.images.astype(np.uint8), "labels": labels, **parts(labels, spec)}
