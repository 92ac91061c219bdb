"""From a BodySpec to timm's classes: VisionTransformer, its distilled kind, or Eva, with a stem of ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from timm.layers import GluMlp, LayerNorm, RmsNorm, SwiGLU
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import ResPostBlock, VisionTransformer
from torch import nn

from ..spec import BodySpec, StemSpec
from .stem import Stem

_MLPS = {"swiglu": SwiGLU, "swiglu_packed": partial(GluMlp, gate_last=False)}
_ROPE_TYPES = {"axial": "cat", "mixed": "mixed", "dinov3": "dinov3"}


def build_body(
    body: BodySpec, stem: StemSpec, image_size: tuple[int, int], classes: int, **options: Any
) -> VisionTransformer | Eva:
    """Return timm's model of a body, with a stem for images of (height, width) pixels and a head for `classes`.

    `options` go to timm's class. Shape: (batch, 3, H, W) -> logits (batch, classes).
    """
    arguments = {"num_classes": classes, **timm_arguments(body), **options}
    if not body.is_eva:
        kind = VisionTransformerDistilled if body.distilled else VisionTransformer
        return kind(img_size=image_size, patch_size=stem.stride, embed_layer=partial(Stem, stem), **arguments)
    # Eva makes its patch embedding itself. For an image of as many patches as the stem has tokens, the embeddings of
    # positions have their sizes right, and the stem can take its place.
    end = stem.trace(*image_size, body.dim).end
    (height, width), (rows, columns) = stem.stride, (end.height, end.width)
    model: Any = Eva(img_size=(rows * height, columns * width), patch_size=stem.stride, **arguments)
    model.patch_embed = Stem.in_place_of(model.patch_embed, stem, body.dim, image_size)
    return cast(Eva, model)


def timm_arguments(body: BodySpec) -> dict[str, Any]:
    """Return what timm's class is to be given for a body; only what differs from a ViT, so that older timms do."""
    arguments: dict[str, Any] = {
        "global_pool": body.pool,
        "embed_dim": body.dim,
        "depth": body.depth,
        "num_heads": body.heads,
        "mlp_ratio": _ratio(body.mlp_hidden, body.dim),
        "qkv_bias": body.qkv_bias,
        "class_token": body.class_token,
        "init_values": body.layer_scale,
        "no_embed_class": body.pos_embed == "patches",
    }
    if body.qk_norm:
        arguments["qk_norm"] = True
    if (body.norm, body.norm_eps) != ("layer", 1e-6):
        arguments["norm_layer"] = _norm_layer(body)
    return arguments | (_eva_arguments(body) if body.is_eva else _vit_arguments(body))


def _vit_arguments(body: BodySpec) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if body.fc_norm is not None:
        arguments["fc_norm"] = body.fc_norm
    if body.pos_embed == "none":
        arguments["pos_embed"] = "none"
    if body.post_norm:
        arguments["block_fn"] = ResPostBlock
    if body.mlp != "mlp":
        arguments |= {"mlp_layer": _MLPS[body.mlp], "act_layer": "silu"}
    elif body.act != "gelu":
        arguments["act_layer"] = body.act
    if body.mlp == "swiglu_packed":
        arguments["mlp_ratio"] = _ratio(2 * body.mlp_hidden, body.dim)  # timm's is of gate and value together
    names = ("reg_tokens", "pre_norm", "scale_attn_norm", "scale_mlp_norm", "pool_include_prefix")
    arguments |= {name: getattr(body, name) for name in names if getattr(body, name)}
    return arguments | {name: False for name in ("proj_bias", "final_norm") if not getattr(body, name)}


def _eva_arguments(body: BodySpec) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "qkv_fused": body.qkv_fused,
        "attn_type": "rope" if body.qkv_bias and body.k_bias else "eva",
        "num_reg_tokens": body.reg_tokens,
        "use_abs_pos_emb": body.pos_embed != "none",
        "use_pre_transformer_norm": body.pre_norm,
        "use_post_norm": body.post_norm,
        "use_post_transformer_norm": body.final_norm and not body.norm_behind_pool,
        "use_fc_norm": body.final_norm and body.norm_behind_pool,
        "scale_attn_inner": body.scale_attn_norm,
        "scale_mlp": body.scale_mlp_norm,
        "swiglu_mlp": body.mlp != "mlp",
        "attn_pool_num_heads": body.pool_heads,
        "attn_pool_mlp_ratio": None if body.pool_hidden is None else _ratio(body.pool_hidden, body.dim),
    }
    if body.mlp == "swiglu":
        arguments["swiglu_align_to"] = 1  # asks for gate and value apart, and rounds no width
    if body.rope is not None:
        reference = body.rope.reference_grid
        arguments |= {
            "use_rot_pos_emb": True,
            "rope_type": _ROPE_TYPES[body.rope.kind],
            "rope_temperature": body.rope.temperature,
            "rope_grid_indexing": body.rope.grid_indexing,
            "rope_grid_offset": body.rope.grid_offset,
            "rope_rotate_half": body.rope.rotate_half,
            "ref_feat_shape": reference,
        }
    return arguments


def _norm_layer(body: BodySpec) -> Callable[..., nn.Module]:
    return partial(LayerNorm if body.norm == "layer" else RmsNorm, eps=body.norm_eps)


def _ratio(hidden: int, dim: int) -> float:
    """Return a ratio of which timm, which rounds down, makes this width: half a unit more survives any rounding."""
    return (hidden + 0.5) / dim
