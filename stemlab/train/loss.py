"""What a run makes small: the loss of a batch, whose images may be mixed with one another."""

from __future__ import annotations

from typing import Any

import torch
from timm.data.mixup import Mixup, mixup_target
from torch.nn import functional as F

from ..data.drawn import seeded
from ..data.split import Batch
from ..spec import TrainSpec

Outputs = tuple[torch.Tensor, torch.Tensor | None]
"""Logits (n, classes), and those of every patch token (n, tokens, classes) where they have a loss of their own."""


def outputs(model: Any, images: torch.Tensor, tokens: bool) -> Outputs:
    """Return what a model of timm's makes of images (n, 3, H, W); of each of its patch `tokens`, too, if wanted."""
    if not tokens:
        return model(images), None
    features = model.forward_features(images)
    patches = features[:, model.num_prefix_tokens :]
    return model.forward_head(features), model.head(model.head_drop(model.fc_norm(patches)))


def loss(spec: TrainSpec, found: Outputs, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy; labels are classes (n,) or shares of them (n, classes)."""
    logits, dense = found
    total = F.cross_entropy(logits.float(), labels, label_smoothing=spec.label_smoothing)
    if dense is None:
        return total
    every = labels.repeat_interleave(dense.shape[1], 0)
    of_tokens = F.cross_entropy(dense.float().flatten(0, 1), every, label_smoothing=spec.label_smoothing)
    return total + (spec.token_labels or 0.0) * of_tokens


def mixer(spec: TrainSpec, classes: int) -> Mixup | None:
    """Return timm's Mixup for a recipe, None where no images are mixed. Labels are smoothed in the loss, not here."""
    augment = spec.augment
    if augment is None or not augment.mixes:
        return None
    share = 0.5 if augment.cutmix_share is None else augment.cutmix_share
    return Mixup(  # type: ignore[no-untyped-call]
        augment.mixup or 0.0, augment.cutmix or 0.0, switch_prob=share, label_smoothing=0.0, num_classes=classes
    )


def mixed(mix: Mixup, images: torch.Tensor, labels: torch.Tensor, seed: int) -> Batch:
    """Return a batch's images mixed in pairs, the odd one left alone, and shares of classes (n, classes)."""
    pairs = len(images) // 2 * 2
    images = images.contiguous()  # mixed in their place
    with seeded((seed, 1), images.device):  # not what the images were varied by
        _, shares = mix(images[:pairs], labels[:pairs])
    alone: torch.Tensor = mixup_target(labels[pairs:], mix.num_classes)  # type: ignore[no-untyped-call]
    return images, torch.cat([shares, alone])
