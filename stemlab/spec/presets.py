"""Recipes by name: what a `preset` in a recipe stands for."""

from __future__ import annotations

from typing import Any

from ..errors import nearest, one_of, short
from .base import spec_error

_MIXED = {"mixup": 0.8, "cutmix": 1.0, "cutmix_share": 0.5}

PRESETS: dict[str, dict[str, Any]] = {
    "deit": {
        "epochs": 300,
        "batch_size": 1024,
        "optimizer": "adamw",
        "lr": 1e-3,
        "weight_decay": 0.05,
        "schedule": "cosine",
        "warmup_epochs": 5.0,
        "min_lr": 1e-5,
        "label_smoothing": 0.1,
        "ema": 0.99996,
        "drop_path": 0.1,
        "augment": {
            "crop": [0.08, 1.0], "flip": 0.5, "auto": "rand-m9-mstd0.5-inc1", "erasing": 0.25, "repeats": 3, **_MIXED,
        },
    },
    "vit_c_imagenet": {
        "epochs": 400,
        "batch_size": 2048,
        "optimizer": "adamw",
        "lr": 1e-3,
        "weight_decay": 0.24,
        "schedule": "cosine",
        "warmup_epochs": 5.0,
        "min_lr": 0.0,
        "label_smoothing": 0.1,
        "ema": 0.9999488,
        "augment": {"crop": [0.08, 1.0], "flip": 0.5, "auto": "original", **_MIXED},
    },
}  # fmt: skip
"""`deit`: DeiT's (arXiv 2012.12877, table 9), with what its main.py has as defaults. The learning rate is 0.0005 for
512 images of a batch. Its colour jitter is not among the fields, since timm leaves it out beside RandAugment.

`vit_c_imagenet`: that of "Early Convolutions Help Transformers See Better" (arXiv 2106.14881, sections 5.4 and 6), for
ViT_P and ViT_C up to 18GF; for the 36GF models it has lr 6e-4 and weight_decay 0.28. What the paper gives no number for
is that of pycls, its authors' code: the area of a crop, the mirror images, an even choice between mixup and CutMix, and
the decay of the mean of weights, 1 - 1e-5 * 2048 / 400 for an update of 2048 images in 400 epochs. Which AutoAugment is
not said; it is the policy of its paper, `original`.
"""


def expanded(recipe: Any) -> Any:
    """Return a recipe with the fields of its `preset` where it gives none; what is no mapping as it is."""
    if not isinstance(recipe, dict) or "preset" not in recipe:
        return recipe
    name = recipe["preset"]
    if not isinstance(name, str) or name not in PRESETS:
        raise spec_error(
            f"unknown preset {short(name)}; expected {one_of(PRESETS)}{nearest(name, PRESETS)}", at=("preset",)
        )
    return {**PRESETS[name], **{field: value for field, value in recipe.items() if field != "preset"}}
