"""Which images of a set train, which choose and which only report. No torch here."""

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


def parts(labels: NDArray[np.int64], spec: DataSpec, own: Sequence[Places] | None = None) -> Arrays:
    """Return the places of the images of `train`, `validation` and `test`, for the labels (n,) of all images.

    `own` are the places of the set's own parts, empty where it lacks one; a single held-out part is the test part. What
    it lacks is split off the training part, stratified by class. The split depends on the labels, the shares of the
    parts and spec.split_seed alone.
    """
    _, for_validation, for_test = spec.part_sizes
    nothing = np.arange(0)
    train, validation, test = own or (np.arange(len(labels)), nothing, nothing)
    if not len(test):
        validation, test = test, validation
    if not len(test):
        train, test = _split_off(train, labels, for_test, spec.split_seed)
    if not len(validation):
        train, validation = _split_off(train, labels, for_validation, spec.split_seed)
    return {"train": train, "validation": validation, "test": test}


def _split_off(places: Places, labels: NDArray[np.int64], images: int, seed: int) -> tuple[Places, Places]:
    """Return what is left of these places, and so many of them. An image that is the only one of its class is left."""
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


def digest(spec: DataSpec) -> str:
    """Return 16 hex digits of all but the labels that a split depends on."""
    split = f"{spec.validation!r} {spec.test!r} {spec.split_seed} scikit-learn {metadata.version('scikit-learn')}"
    return hashlib.sha256(split.encode()).hexdigest()[:16]
