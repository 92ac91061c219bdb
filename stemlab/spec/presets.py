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
        "drop_path": 0.1,
        "augment": {
            "crop": [0.08, 1.0], "flip": 0.5, "color_jitter": 0.3, "auto": "rand-m9-mstd0.5-inc1", "erasing": 0.25,
            "repeats": 3, **_MIXED,
        },
    },
}  # fmt: skip
"""`deit`: DeiT's (arXiv 2012.12877, table 9)."""


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
