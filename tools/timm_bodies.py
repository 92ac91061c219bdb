"""Write stemlab/spec/bodies.json: the fields of every plain ViT that the installed timm knows by name.

python tools/timm_bodies.py
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import timm
from timm.layers import GluMlp, LayerNorm, RmsNorm, SwiGLU, get_act_layer
from timm.models import beit, deit, eva, list_models, model_entrypoint, vision_transformer
from timm.models.vision_transformer import ResPostBlock, VisionTransformer
from torch import nn

from stemlab.spec import BodySpec
from stemlab.spec.bodies import TABLE

# What an entry point says that is not about the body: the stem's and the image's business, and how weights are read.
NOT_THE_BODYS = {
    "img_size", "patch_size", "embed_norm_layer", "dynamic_img_size", "rope_rescale_coords",
    "feature_cfg", "pretrained_filter_fn", "pretrained_strict",
}  # fmt: skip
AS_THEY_ARE = {
    "embed_dim": "dim", "depth": "depth", "num_heads": "heads", "class_token": "class_token",
    "reg_tokens": "reg_tokens", "num_reg_tokens": "reg_tokens",
    "qkv_bias": "qkv_bias", "proj_bias": "proj_bias", "qkv_fused": "qkv_fused",
    "pre_norm": "pre_norm", "use_pre_transformer_norm": "pre_norm", "use_post_norm": "post_norm",
    "qk_norm": "qk_norm", "scale_attn_norm": "scale_attn_norm", "scale_attn_inner": "scale_attn_norm",
    "scale_mlp_norm": "scale_mlp_norm", "scale_mlp": "scale_mlp_norm", "init_values": "layer_scale",
    "global_pool": "pool", "pool_include_prefix": "pool_include_prefix",
    "attn_pool_num_heads": "pool_heads", "attn_pool_mlp_ratio": "pool_mlp_ratio",
}  # fmt: skip
ROPE = {
    "rope_temperature": "temperature", "rope_grid_offset": "grid_offset", "rope_grid_indexing": "grid_indexing",
    "rope_rotate_half": "rotate_half", "ref_feat_shape": "reference_grid",
}  # fmt: skip
READ = {
    *AS_THEY_ARE, *ROPE, "mlp_ratio", "mlp_layer", "act_layer", "swiglu_mlp", "swiglu_align_to", "norm_layer",
    "final_norm", "fc_norm", "use_fc_norm", "use_post_transformer_norm", "no_embed_class", "use_abs_pos_emb",
    "use_rot_pos_emb", "rope_type", "attn_type", "block_fn",
}  # fmt: skip
ROPE_KINDS = {"cat": "axial", "mixed": "mixed", "dinov3": "dinov3"}
ACTS = {get_act_layer(name): name for name in ("gelu", "gelu_tanh", "quick_gelu", "silu", "relu")}
REASONS = {
    "attn_layer": "its attention is differential",
    "use_rel_pos_bias": "its attention has a learned bias for every two positions",
    "num_kv_heads": "its blocks share keys and values between heads, or scale the attention's branch alone",
}


class NotPlainError(Exception):
    """A model that the fields of a body cannot describe."""


def entry_points() -> Iterator[tuple[str, type[nn.Module], dict[str, Any]]]:
    """Yield name, class and the arguments of the class for every ViT that timm has a name for."""
    for module in (vision_transformer, deit, eva, beit):
        for name in list_models(module=module.__name__.rpartition(".")[2]):
            with patch.object(module, "build_model_with_cfg") as build:
                model_entrypoint(name)()
            (kind, *_), given = build.call_args
            yield name, kind, given


def table() -> dict[str, Any]:
    """Return what the file holds: the fields of the plain ViTs, and why the others are none."""
    bodies, refused = {}, {}
    for name, kind, given in sorted(entry_points()):
        try:
            bodies[name] = fields(kind, given)
        except NotPlainError as reason:
            refused[name] = str(reason)
    return {"timm": timm.__version__, "bodies": bodies, "refused": refused}


def fields(kind: type[nn.Module], given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of one body, those that are not the default; NotPlainError where no fields can tell."""
    for key, reason in REASONS.items():
        if given.get(key):
            raise NotPlainError(reason)
    if given.get("block_fn", ResPostBlock) is not ResPostBlock:
        raise NotPlainError("its blocks have branches side by side")
    if unread := given.keys() - READ - NOT_THE_BODYS:
        raise NotPlainError(f"it has options that stemlab does not know: {', '.join(sorted(unread))}")
    distilled = kind is deit.VisionTransformerDistilled
    signature = inspect.signature(VisionTransformer if distilled else kind)
    values = {name: p.default for name, p in signature.parameters.items()} | given
    found = {field: values[key] for key, field in AS_THEY_ARE.items() if key in values}
    found["layer_scale"] = values["init_values"] or None
    found |= _norms(values) | _mlp(values)
    if kind is eva.Eva:
        found |= _eva(values)
    else:
        found |= {"distilled": distilled, "post_norm": values["block_fn"] is ResPostBlock}
        found |= {"final_norm": values["final_norm"], "fc_norm": values["fc_norm"] if values["final_norm"] else None}
    if values["no_embed_class"] and found.get("pos_embed") != "none":
        found["pos_embed"] = "patches"
    body = BodySpec.model_validate(found)
    least = BodySpec(dim=body.dim, depth=body.depth, heads=body.heads, class_token=body.class_token)
    usual = {**least.canonical(), "class_token": True}
    told = {name: value for name, value in body.canonical().items() if value != usual.get(name)}
    return {"dim": body.dim, "depth": body.depth, "heads": body.heads, **told}


def _norms(values: dict[str, Any]) -> dict[str, Any]:
    layer = values["norm_layer"]
    keywords = layer.keywords if isinstance(layer, functools.partial) else {}
    kind = layer.func if isinstance(layer, functools.partial) else layer
    kinds = {None: "layer", LayerNorm: "layer", RmsNorm: "rms", "rmsnorm": "rms"}
    return {"norm": kinds[kind], "norm_eps": keywords.get("eps", 1e-6)}


def _mlp(values: dict[str, Any]) -> dict[str, Any]:
    dim, ratio = values["embed_dim"], values["mlp_ratio"]
    hidden = int(dim * ratio)
    found: dict[str, Any] = {}
    if values.get("swiglu_mlp"):
        align = values["swiglu_align_to"] or 1
        split = values["scale_mlp"] or values["swiglu_align_to"]
        found["mlp"] = "swiglu" if split else "swiglu_packed"
        hidden += -hidden % align
    elif "mlp_layer" in values:
        layer, act = values["mlp_layer"], ACTS[get_act_layer(values["act_layer"] or "gelu")]
        if layer is SwiGLU:
            found["mlp"] = "swiglu"
        elif isinstance(layer, functools.partial) and layer.func is GluMlp and not layer.keywords["gate_last"]:
            found["mlp"], hidden, ratio = "swiglu_packed", hidden // 2, ratio / 2  # timm's width is of both together
        if "mlp" not in found:
            found["act"] = act
        elif act != "silu":
            raise NotPlainError(f"the gate of its MLP is {act}")
    same = int(dim * ratio + 1e-6) == hidden
    return {**found, "mlp_ratio": float(ratio) if same else hidden / dim}


def _eva(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"k_bias": values["attn_type"] == "rope" or not values["qkv_bias"]}
    behind = values["use_fc_norm"] if values["use_fc_norm"] is not None else values["global_pool"] == "avg"
    before = values["use_post_transformer_norm"]
    before = before if before is not None else not behind
    if behind and before:
        raise NotPlainError("it has a norm before the pooling and one behind it")
    found |= {"final_norm": behind or before, "fc_norm": behind if behind or before else None}
    if values["global_pool"] == "map" and (values["class_token"] or values["num_reg_tokens"]):
        found["pool_include_prefix"] = True
    if not values["use_abs_pos_emb"]:
        found["pos_embed"] = "none"
    if values["use_rot_pos_emb"]:
        found["rope"] = {"kind": ROPE_KINDS[values["rope_type"]]}
        found["rope"] |= {field: values[key] for key, field in ROPE.items() if values[key] is not None}
    return found


def text(content: dict[str, Any]) -> str:
    """Return the table as JSON with one name a line."""
    lines = [f'"timm": {json.dumps(content["timm"])}']
    for part in ("bodies", "refused"):
        entries = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in content[part].items())
        lines.append(f'"{part}": {{\n{entries}\n}}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    TABLE.write_text(text(table()), encoding="utf-8")
