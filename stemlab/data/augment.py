"""Training images in memory, varied on their device as timm varies images on a disk."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import (
    augment_and_mix_transform,
    auto_augment_transform,
    posterize,
    rand_augment_transform,
)
from timm.data.random_erasing import RandomErasing
from torch.nn import functional as F

from ..spec import AugmentSpec
from .drawn import seeded

Level = float | torch.Tensor
"""A value of the images' colours: one for all, or (3, 1, 1)."""

_ASPECT = (3 / 4, 4 / 3)  # of a random crop, as in timm and torchvision
_TRIES = 10
_GREY = (0.2989, 0.587, 0.114)


def varied(
    images: torch.Tensor, spec: AugmentSpec, seed: int, mean: Level = 0.0, deviation: Level = 1.0
) -> torch.Tensor:
    """Return images (n, 3, H, W) varied, each in its own way, in timm's order; what is drawn follows from the seed.

    They are normalised by `mean` and `deviation`, both before and after: in between colours are from 0 to 1. Mixing and
    repeats are of a batch and of an epoch, and not done here.
    """
    with seeded((seed,), images.device):
        if spec.crop is not None:
            images = _cropped(images, *spec.crop)
        if spec.flip:
            images = torch.where(_draw(images) < spec.flip, images.flip(-1), images)
        if spec.auto is not None or spec.color_jitter is not None:
            colours = (images * deviation + mean).clamp(0, 1)
            if spec.auto is not None:
                colours = _by_policy(colours, spec.auto, float(torch.as_tensor(mean).mean()))
            if spec.color_jitter is not None:
                colours = _jittered(colours, spec.color_jitter)
            images = (colours - mean) / deviation
        if spec.erasing:
            erase: Any = RandomErasing
            images = erase(spec.erasing, mode="pixel", device=images.device)(images.clone())
    return images


def _draw(images: torch.Tensor, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    """Draw a number for each image: (n, 1, 1, 1)."""
    return low + (high - low) * torch.rand(len(images), 1, 1, 1, device=images.device)


def _cropped(images: torch.Tensor, least: float, most: float) -> torch.Tensor:
    """Return a random part of each image, of a share of its area and an aspect ratio, in the image's size."""
    count, _, height, width = images.shape
    # As timm, try some and take the first that fits; if none does, the whole image.
    area = (least + (most - least) * torch.rand(count, _TRIES, device=images.device)) * height * width
    low, high = np.log(_ASPECT)
    aspect = torch.exp(low + (high - low) * torch.rand(count, _TRIES, device=images.device))
    wide, high_ = (area * aspect).sqrt() / width, (area / aspect).sqrt() / height
    fits = (wide <= 1) & (high_ <= 1)
    first = fits.int().argmax(1, keepdim=True)
    none = ~fits.any(1, keepdim=True)
    wide, high_ = (torch.where(none, 1.0, size.gather(1, first)).squeeze(1) for size in (wide, high_))
    across, down = (2 * torch.rand(count, device=images.device) - 1 for _ in range(2))
    zero = torch.zeros_like(wide)
    rows = [wide, zero, across * (1 - wide), zero, high_, down * (1 - high_)]
    grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _jittered(colours: torch.Tensor, strength: float) -> torch.Tensor:
    """Return images with a brightness, a contrast and a saturation of their own, as torchvision's ColorJitter."""
    for place in torch.randperm(3).tolist():
        factor = _draw(colours, max(0.0, 1 - strength), 1 + strength)
        grey = torch.einsum("nchw,c->nhw", colours, colours.new_tensor(_GREY)).unsqueeze(1)
        towards = (torch.zeros_like(grey), grey.mean((-2, -1), keepdim=True), grey)[place]
        colours = (factor * colours + (1 - factor) * towards).clamp(0, 1)
    return colours


def _by_policy(colours: torch.Tensor, name: str, mean: float) -> torch.Tensor:
    """Return images changed by timm's policy, one by one and as bytes, which is what its operations work on."""
    policy = _policy(name, min(colours.shape[-2:]), round(255 * mean))
    pictures = (colours * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    changed = np.stack([np.asarray(policy(Image.fromarray(picture))) for picture in pictures])
    return torch.from_numpy(changed).to(colours.device).permute(0, 3, 1, 2).float() / 255


@functools.lru_cache(maxsize=8)
def _policy(name: str, size: int, fill: int) -> Callable[[Image.Image], Image.Image]:
    common: dict[str, Any] = {"translate_const": int(size * 0.45), "img_mean": (min(255, max(0, fill)),) * 3}
    if name.startswith("rand"):
        made = rand_augment_transform(name, common)
    elif name.startswith("augmix"):
        made = augment_and_mix_transform(name, {**common, "translate_pct": 0.3})
    else:
        made = auto_augment_transform(name, common)
    policy: Callable[[Image.Image], Image.Image] = mended(made)
    return policy


def mended(transform: Any) -> Any:
    """Return timm's policy so that it posterises to no bits at all where it draws that: Pillow refuses to since 13.

    What is no policy of timm's is returned as it is.
    """
    for step in getattr(transform, "ops", None) or getattr(transform, "policy", []):
        for operation in step if isinstance(step, list) else [step]:
            if operation.aug_fn is posterize:
                operation.aug_fn = _posterised
    return transform


def _posterised(picture: Image.Image, bits: int, **options: Any) -> Image.Image:
    if not bits:
        return Image.new(picture.mode, picture.size)
    return posterize(picture, bits, **options)  # type: ignore[no-any-return, no-untyped-call]
