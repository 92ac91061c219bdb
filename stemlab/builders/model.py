"""From a ModelSpec to timm's model with our stem."""

from __future__ import annotations

from typing import Any

from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from ..matching import match
from ..spec import ModelSpec, StemSpec
from ..spec.base import pair
from .body import build_body
from .hub import describe
from .pretrained import load_pretrained
from .seed import seeded
from .stem import Stem


def build_model(spec: ModelSpec, seed: int | None = None, **options: Any) -> VisionTransformer | Eva:
    """Return timm's model of a spec, matched first where the spec asks for it.

    It is a VisionTransformer, or an Eva where the body has rotary embeddings or keys without bias. `seed` fixes the
    initial weights and leaves torch's global generator as it was. `options` go to timm's class:
    `dynamic_img_size=True`, `drop_path_rate=0.1`, ... Pretrained weights that the body asks for are loaded.

    Shape: (batch, 3, H, W) -> logits (batch, classes).
    """
    settled = match(spec).model
    with seeded(seed):
        model = build_body(settled.body, settled.stem, pair(settled.image_size), settled.classes, **options)
    weights = settled.body.pretrained
    describe(model, settled, options, **({} if weights is None else load_pretrained(model, weights)))
    return model


def build_stem(spec: StemSpec, dim: int, image_size: int | tuple[int, int] = 224, **options: Any) -> Stem:
    """Return a stem alone, on a body of width `dim`: (batch, 3, H, W) -> (batch, tokens, dim)."""
    return Stem(spec, img_size=image_size, embed_dim=dim, **options)
