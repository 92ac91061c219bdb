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


def parts(labels: Places, spec: DataSpec, own: Sequence[Places] | None = None) -> Arrays:
    """Return the places of the images of `train`, `validation` and `test`, for the labels (n,) of all images.

    `own` are those of the parts that the set has itself, each empty where it has not. What it lacks is split off the
    training part, by class: that depends on the labels, the sizes of the parts and spec.split_seed alone.
    """
    _, for_validation, for_test = spec.part_sizes
    none = np.arange(0)
    train, validation, test = own or (np.arange(len(labels)), none, none)
    if not len(test):
        validation, test = test, validation  # a single held-out part is the test part
    if not len(test):
        train, test = _split_off(train, labels, for_test, spec.split_seed)
    if not len(validation):
        train, validation = _split_off(train, labels, for_validation, spec.split_seed)
    return {"train": train, "validation": validation, "test": test}


def _split_off(places: Places, labels: Places, images: int, seed: int) -> tuple[Places, Places]:
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


def digest(spec: DataSpec) -> str:
    """Return 16 hex digits of all but the labels that a split depends on."""
    split = f"{spec.validation!r} {spec.test!r} {spec.split_seed} scikit-learn {metadata.version('scikit-learn')}"
    return hashlib.sha256(split.encode()).hexdigest()[:16]
