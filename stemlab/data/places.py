"""Which images of a set with parts of its own, or without, train, choose and report. No torch here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import metadata

import numpy as np
from numpy.typing import NDArray

from ..errors import SpecError
from ..spec import DataSpec
from .cache import Arrays

Places = NDArray[np.int64]


def places(spec: DataSpec, labels: NDArray[np.int64], own: Sequence[Places] | None = None) -> Arrays:
    """Return the places of `train`, `validation` and `test`, of a set whose own three parts are `own` (or empty).

    Without `own`, all images are of its training part. What it lacks is split off the training part, by class, as
    spec.split_seed says; the sizes are those of spec.part_sizes.
    """
    _, for_validation, for_test = spec.part_sizes
    train, validation, test = own or (np.arange(len(labels)), np.array([], int), np.array([], int))
    if not len(test):
        validation, test = test, validation  # a single held-out part is the test part
    if not len(test):
        train, test = split_off(train, labels, for_test, spec.split_seed)
    if not len(validation):
        train, validation = split_off(train, labels, for_validation, spec.split_seed)
    return {"train": train, "validation": validation, "test": test}


def split_off(places: Places, labels: NDArray[np.int64], images: int, seed: int) -> tuple[Places, Places]:
    """Return what is left of these places, and so many of them, stratified by class.

    An image that is the only one of its class is left.
    """
    # Here, since importing it takes half as long as importing torch.
    from sklearn.model_selection import train_test_split

    mine = labels[places]
    alone = np.bincount(mine)[mine] == 1
    try:
        rest, held_out = train_test_split(places[~alone], test_size=images, stratify=mine[~alone], random_state=seed)
    except ValueError:
        raise SpecError(
            f"{len(places)} images of {len(np.unique(mine))} classes are too few to hold {images} of them out, some of "
            "each class"
        ) from None
    return np.concatenate([rest, places[alone]]), held_out


def split_digest(spec: DataSpec) -> str:
    """Return 16 hex digits of what a split depends on beside the labels."""
    split = f"{spec.validation!r} {spec.test!r} {spec.split_seed} scikit-learn {metadata.version('scikit-learn')}"
    return hashlib.sha256(split.encode()).hexdigest()[:16]
