"""What timm.create_model calls for our models."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from timm.models import build_model_with_cfg
from torch import nn

from ..errors import SpecError
from ..matching import match
from ..spec import ModelSpec
from ..spec.base import pair
from ..spec.files import Document, validate
from .hub import data_config, name_first_conv
from .model import build_model

_POOLS = ("token", "avg")


def create(
    architecture: str, spec: ModelSpec | dict[str, Any] | None, pretrained: bool = False, **options: Any
) -> nn.Module:
    """Return the model of a spec, made by timm's own builder and so with all that it does.

    `options` are those of timm's ViTs: num_classes, img_size, in_chans, global_pool, features_only, drop_path_rate,
    dynamic_img_size, ... The body is settled at the spec's own image size and classes, whatever the options say.
    """
    if spec is None:
        raise SpecError(f"{architecture}: no spec; expected a model: timm.create_model({architecture!r}, spec={{...}})")
    model_spec = spec if isinstance(spec, ModelSpec) else validate(ModelSpec, Document(spec, "<spec>"))
    settled = match(model_spec).model
    options["pretrained_cfg"] = options.pop("pretrained_cfg", None) or data_config(settled, architecture=architecture)
    model: nn.Module = build_model_with_cfg(
        partial(_build, settled),
        architecture,
        pretrained,
        pretrained_filter_fn=_fit_positions,
        feature_cfg={"out_indices": options.pop("out_indices", 3), "feature_cls": "getter"},
        **options,
    )
    if hasattr(model, "patch_embed"):  # the wrapper of features_only has none
        name_first_conv(model)
    return model


def _build(spec: ModelSpec, **options: Any) -> nn.Module:
    classes, pool = options.pop("num_classes", spec.classes), options.pop("global_pool", spec.body.pool)
    document = {
        **spec.canonical(),
        "image_size": options.pop("img_size", spec.image_size),
        "classes": classes or spec.classes,
        "body": {**spec.body.canonical(), "pool": pool if pool in _POOLS else spec.body.pool},
    }
    model = build_model(validate(ModelSpec, Document(document, "<model>")), **options)
    if not classes or pool not in _POOLS:  # no spec says so, but timm's models can be had like that
        model.reset_classifier(classes, pool)
    return model


def _fit_positions(weights: dict[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
    """Resample the position embedding of weights that were saved at another image size."""
    positions = weights.get("pos_embed")
    if positions is None or model.pos_embed is None:
        return weights
    prefix = 0 if model.no_embed_class else model.num_prefix_tokens
    size = pair(model.pretrained_model_args.get("img_size") or model.pretrained_cfg["input_size"][1:])
    grid = model.patch_embed.dynamic_feat_size(size)
    positions = resample_abs_pos_embed(positions, model.patch_embed.grid_size, grid, num_prefix_tokens=prefix)
    return {**weights, "pos_embed": positions}
