"""Digits: 1,797 real scans of handwritten digits (8x8 pixels, UCI), as scikit-learn ships them."""

from __future__ import annotations

import functools

import torch
from einops import repeat
from torch.nn import functional as F

from ..spec import DataSpec
from ..spec.base import pair
from .scans import scans
from .split import MemoryPart, Splits, grey


@functools.lru_cache(maxsize=2)
def load_digits(spec: DataSpec, device: str = "cpu") -> Splits:
    """Return the scans, enlarged to spec.image_size and normalised by the training part's mean and deviation."""
    raw = scans(spec)
    images = torch.from_numpy(raw["images"]).float()[:, None] / 16
    images = F.interpolate(images, size=pair(spec.image_size), mode="bilinear", align_corners=False)
    train = images[raw["train"]]
    mean, deviation = train.mean(), train.std()
    images = (images - mean) / deviation
    images = repeat(images, "n 1 h w -> n c h w", c=3)
    labels = torch.from_numpy(raw["labels"])

    def part(name: str) -> MemoryPart:
        own = images[raw[name]].contiguous().to(device)
        return MemoryPart(own, labels[raw[name]].to(device), float(mean), float(deviation))

    return Splits(part("train"), part("validation"), part("test"), grey(float(mean), float(deviation)))
