"""From a ModelSpec to timm's VisionTransformer with our stem."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer

from ..errors import SpecError, short
from ..matching import match
from ..spec import ModelSpec, StemSpec
from ..spec.base import pair
from .hub import describe
from .stem import Stem


def build_model(spec: ModelSpec, seed: int | None = None, **options: Any) -> VisionTransformer:
    """Return timm's VisionTransformer for a spec, matched first where the spec asks for it.

    `seed` fixes the initial weights and leaves torch's global generator as it was. `options` go to
    VisionTransformer: `dynamic_img_size=True`, `drop_path_rate=0.1`, ...

    Shape: (batch, 3, H, W) -> logits (batch, classes).
    """
    if seed is not None:
        if not 0 <= seed < 2**32:
            raise SpecError(f"seed (={short(seed)}) must be at least 0 and less than 2**32")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_model(spec, **options)
    settled = match(spec).model
    body = settled.body
    model = VisionTransformer(
        img_size=pair(settled.image_size),
        patch_size=settled.stem.stride,
        num_classes=settled.classes,
        global_pool=body.pool,
        embed_dim=body.dim,
        depth=body.depth,
        num_heads=body.heads,
        # timm takes the hidden width from a ratio, rounded down; half a unit more survives any rounding.
        mlp_ratio=(body.mlp_hidden + 0.5) / body.dim,
        qkv_bias=body.qkv_bias,
        class_token=body.class_token,
        embed_layer=partial(Stem, settled.stem),
        **options,
    )
    describe(model, settled, options)
    return model


def build_stem(spec: StemSpec, dim: int, image_size: int | tuple[int, int] = 224, **options: Any) -> Stem:
    """Return a stem alone, on a body of width `dim`: (batch, 3, H, W) -> (batch, tokens, dim)."""
    return Stem(spec, img_size=image_size, embed_dim=dim, **options)
