"""A stem on a timm ViT that exists already, pretrained or not."""

from __future__ import annotations

from typing import Any, TypeVar

from timm.layers import PatchEmbed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ..errors import SpecError
from ..spec import StemSpec
from ..spec.base import pair
from .hub import name_first_conv
from .seed import seeded
from .stem import Stem

Model = TypeVar("Model", bound=nn.Module)


def attach(
    spec: StemSpec, model: Model, image_size: int | tuple[int, int] | None = None, seed: int | None = None
) -> Model:
    """Replace the patch embedding of timm's VisionTransformer or Eva by a stem, in place; return the model.

    Everything else keeps its weights, but for a position embedding on another grid of tokens, which is resampled.
    A norm inside the old patch embedding goes with it. The stem is new, and so has to be trained, even where the
    rest of the model is frozen: its parameters ask for gradients.

    `image_size` is in pixels; unless given, the model's. `seed` fixes the stem's initial weights.

    Shape: (batch, in_chans, H, W), as before; the stem's stride, not the old patch size, sets the number of tokens.
    """
    vit = _plain(model)
    old = vit.patch_embed
    size = pair(old.img_size if image_size is None else image_size)
    channels = old.in_chans if isinstance(old, Stem) else old.proj.in_channels
    misfit = spec.misfit(size, vit.embed_dim, channels, divided=not old.dynamic_img_pad)
    if misfit is not None:
        raise SpecError(f"the stem does not fit the model: {misfit}")
    with seeded(seed):
        stem = Stem.in_place_of(old, spec, vit.embed_dim, size)
    # The position embedding is still the old grid's: with that in place, timm's own resizing does all that is left.
    stem.grid_size = old.grid_size
    vit.patch_embed = stem
    vit.set_input_size(stem.img_size)
    for info in vit.feature_info:
        info["reduction"] = stem.feat_ratio()
    name_first_conv(vit)
    return model


def _plain(model: object) -> Any:
    """Return a model that can take a stem, as one whose attributes mypy does not know (timm does not say them)."""
    why = ""
    if isinstance(model, (VisionTransformer, Eva)):
        if isinstance(model.patch_embed, (PatchEmbed, Stem)):
            return model
        why = f", whose patch embedding is no {type(model.patch_embed).__name__}"
    elif isinstance(getattr(model, "model", getattr(model, "_orig_mod", None)), (VisionTransformer, Eva)):
        why = ", before it is wrapped for features_only or compiled"
    raise SpecError(
        f"model (a {type(model).__name__}) cannot take a stem; expected one of timm's plain ViTs: a "
        f"VisionTransformer (ViT, DeiT, CLIP, SigLIP, DINOv2) or an Eva (EVA-02, DINOv3, PE){why}"
    )
