"""Which images of a set train, which choose and which only report. No torch here."""

from __future__ import annotations

import hashlib
from importlib import metadata

import numpy as np
from numpy.typing import NDArray

from ..spec import DataSpec
from .cache import Arrays


def parts(labels: NDArray[np.int64], spec: DataSpec) -> Arrays:
    """Return the places of the images of `train`, `validation` and `test`, for the labels (n,) of all images.

    The split is stratified by class. It depends on the labels, the shares of the parts and spec.split_seed alone.
    """
    # Here, since importing it takes half as long as importing torch.
    from sklearn.model_selection import train_test_split

    def held_out(places: NDArray[np.int64], share: float) -> list[NDArray[np.int64]]:
        found: list[NDArray[np.int64]] = train_test_split(
            places, test_size=share, stratify=labels[places], random_state=spec.split_seed
        )
        return found

    rest, test = held_out(np.arange(len(labels)), spec.test)
    train, validation = held_out(rest, spec.validation_of_rest)
    return {"train": train, "validation": validation, "test": test}


def digest(spec: DataSpec) -> str:
    """Return 16 hex digits of all but the labels that a split depends on."""
    split = f"{spec.validation!r} {spec.test!r} {spec.split_seed} scikit-learn {metadata.version('scikit-learn')}"
    return hashlib.sha256(split.encode()).hexdigest()[:16]
