"""Digits: 1,797 real scans of handwritten digits (8x8 pixels, UCI), as scikit-learn ships them."""

from __future__ import annotations

import functools

import numpy as np
import torch
from einops import repeat
from sklearn import datasets
from sklearn.model_selection import train_test_split
from torch.nn import functional as F

from ..spec import DataSpec
from ..spec.base import pair
from .split import Part, Splits


@functools.lru_cache(maxsize=2)
def load_digits(spec: DataSpec, device: str = "cpu") -> Splits:
    """Return the scans, enlarged to spec.image_size and normalised by the training part's mean and deviation.

    The split is stratified by class and depends on spec.split_seed alone.
    """
    raw = datasets.load_digits()
    order = np.arange(len(raw.target))
    rest, test = train_test_split(order, test_size=spec.test, stratify=raw.target, random_state=spec.split_seed)
    train, validation = train_test_split(
        rest,
        test_size=spec.validation / (1 - spec.test),
        stratify=raw.target[rest],
        random_state=spec.split_seed,
    )
    scans = torch.tensor(raw.images, dtype=torch.float32)[:, None] / 16
    images = F.interpolate(scans, size=pair(spec.image_size), mode="bilinear", align_corners=False)
    images = (images - images[train].mean()) / images[train].std()
    images = repeat(images, "n 1 h w -> n c h w", c=3)
    labels = torch.tensor(raw.target, dtype=torch.long)

    def part(index: np.ndarray) -> Part:
        return Part(images[index].contiguous().to(device), labels[index].to(device))

    return Splits(part(train), part(validation), part(test))
