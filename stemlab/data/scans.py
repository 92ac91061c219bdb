"""The scans of handwritten digits and how they are split, as arrays. No torch here: a study has them made while its
workers import it."""

from __future__ import annotations

import hashlib
from importlib import metadata

import numpy as np

from ..spec import DataSpec
from .cache import Arrays, kept


def scans(spec: DataSpec) -> Arrays:
    """Return `images` (n, 8, 8) from 0 to 16, `labels` (n,), and the places of the images of each part.

    The split is stratified by class and depends on spec.split_seed alone.
    """
    split = f"{spec.validation!r} {spec.test!r} {spec.split_seed} scikit-learn {metadata.version('scikit-learn')}"
    return kept(f"digits-{hashlib.sha256(split.encode()).hexdigest()[:16]}", lambda: _split(spec))


def _split(spec: DataSpec) -> Arrays:
    # Here, since importing it takes half as long as importing torch.
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    raw = datasets.load_digits()
    order = np.arange(len(raw.target))
    rest, test = train_test_split(order, test_size=spec.test, stratify=raw.target, random_state=spec.split_seed)
    train, validation = train_test_split(
        rest,
        test_size=spec.validation / (1 - spec.test),
        stratify=raw.target[rest],
        random_state=spec.split_seed,
    )
    return {
        "images": raw.images.astype(np.uint8),
        "labels": raw.target.astype(np.int64),
        "train": train,
        "validation": validation,
        "test": test,
    }
