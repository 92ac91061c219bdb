"""BodySpec: everything of a plain ViT but its stem."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from ..errors import short
from .base import Count, Flag, Number, Pair, PositiveInt, Spec, relation_error, spec_error
from .bodies import fields_of, has_weights

PositiveNumber = Annotated[Number, Field(gt=0)]

_ALWAYS_WRITTEN = {"dim", "depth", "heads", "mlp_ratio", "qkv_bias", "class_token", "pool"}


class RopeSpec(Spec):
    """Rotary position embedding: queries and keys of the patches are turned by angles that grow along the grid.

    `axial`: fixed frequencies for height and width (EVA-02, arXiv 2303.11331); `mixed`: learned ones for every head
    of every block (arXiv 2403.13298); `dinov3`: fixed, on coordinates from -1 to 1 (arXiv 2508.10104).
    `reference_grid` is the grid whose positions an axial embedding stretches to any other.
    """

    kind: Literal["axial", "mixed", "dinov3"] = "axial"
    temperature: PositiveNumber = 10000.0
    grid_indexing: Literal["ij", "xy"] = "ij"
    grid_offset: Number = 0.0
    rotate_half: Flag = False
    reference_grid: Pair | None = None

    @model_validator(mode="after")
    def _agrees(self) -> RopeSpec:
        if self.reference_grid is not None and self.kind != "axial":
            raise relation_error(f"reference_grid needs kind: axial, not {self.kind}", at=("reference_grid",))
        if self.kind == "mixed" and (self.rotate_half or self.grid_offset):
            name = "rotate_half" if self.rotate_half else "grid_offset"
            raise relation_error(f"{name} does not go with kind: mixed", at=(name,))
        return self


class BodySpec(Spec):
    """A plain ViT without its stem; as a text, the name of one of timm's, such as `vit_small_patch16_224`.

    `{timm: NAME, ...}` is the body of that name with other fields changed. `pretrained` is the name, with its tag, of
    timm's weights for such a body; `pretrained: true` means those of `timm`'s NAME.

    The canonical form leaves out every option that is as in the ViT of arXiv 2010.11929. By field:
    `pool: map` is attention pooling (arXiv 2106.04560), with heads and MLP of its own or else like the blocks', over
    the patches or, with `pool_include_prefix`, over all tokens. `pos_embed` is what the learned one covers: all tokens,
    patches only, or none. `post_norm` puts the norms behind attention and MLP (`layer_scale` is then their initial
    weight); `final_norm` stands behind the blocks or, with `fc_norm`, behind the pooling (absent: with pool: avg).
    `proj_bias` is of the attention's projection and of the MLP. `mlp: swiglu_packed` has gate and value in one layer;
    `mlp_ratio` is for each of them. `scale_attn_norm` and `scale_mlp_norm` stand before the last layer of either.
    """

    dim: PositiveInt
    depth: PositiveInt
    heads: PositiveInt
    mlp_ratio: PositiveNumber = 4.0
    qkv_bias: Flag = True
    class_token: Flag = True
    pool: Literal["token", "avg", "map"] = "token"
    pool_heads: PositiveInt | None = None
    pool_mlp_ratio: PositiveNumber | None = None
    pool_include_prefix: Flag = False
    distilled: Flag = False
    reg_tokens: Count = 0
    pos_embed: Literal["all", "patches", "none"] = "all"
    rope: RopeSpec | None = None
    norm: Literal["layer", "rms"] = "layer"
    norm_eps: PositiveNumber = 1e-6
    pre_norm: Flag = False
    post_norm: Flag = False
    final_norm: Flag = True
    fc_norm: Flag | None = None
    qk_norm: Flag = False
    scale_attn_norm: Flag = False
    scale_mlp_norm: Flag = False
    layer_scale: PositiveNumber | None = None
    k_bias: Flag = True
    proj_bias: Flag = True
    qkv_fused: Flag = True
    mlp: Literal["mlp", "swiglu", "swiglu_packed"] = "mlp"
    act: Literal["gelu", "gelu_tanh", "quick_gelu", "silu", "relu"] = "gelu"
    pretrained: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {"timm": data}
        if not isinstance(data, dict):
            return data
        data = dict(data)
        name, weights = data.pop("timm", None), data.get("pretrained")
        if name is not None and not isinstance(name, str):
            raise spec_error(f"expected the name of one of timm's ViTs, got {short(name)}", at=("timm",))
        if weights is True:
            if name is None:
                raise spec_error("pretrained: true needs timm: NAME; or name the weights", at=("pretrained",))
            weights = name
        if isinstance(weights, str) and not has_weights(weights):
            fields_of(weights)
            raise spec_error(f"timm has no model {short(weights)}", at=("pretrained",))
        if "pretrained" in data:
            data["pretrained"] = None if weights is False else weights
        source = weights if name is None else name
        if isinstance(source, str):
            data = {**fields_of(source), **data}
        if "pool" not in data:
            data["pool"] = "avg" if data.get("class_token") is False else "token"
        if data.get("fc_norm") is (data["pool"] == "avg"):
            del data["fc_norm"]
        if data.get("pos_embed") == "patches" and data.get("class_token") is False and not data.get("reg_tokens"):
            del data["pos_embed"]
        return data

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Allow the name of a body too, alone or with other fields changed."""
        fields = handler.resolve_ref_schema(handler(schema))
        text = {"type": "string", "description": "one of timm's, such as vit_small_patch16_224"}
        weights = {"anyOf": [fields["properties"]["pretrained"], {"type": "boolean"}]}
        changed = {**fields, "properties": {"timm": text, **fields["properties"], "pretrained": weights}}
        brought = {**fields, "required": ["pretrained"]}
        return {"anyOf": [text, fields, {**changed, "required": ["timm"]}, brought]}

    def canonical(self) -> dict[str, Any]:
        """Return the canonical document; options that are as usual are left out, so that new ones change no digest."""
        fields, written = type(self).model_fields, super().canonical()
        return {name: v for name, v in written.items() if name in _ALWAYS_WRITTEN or v != fields[name].default}

    @model_validator(mode="after")
    def _agrees(self) -> BodySpec:
        if self.dim % self.heads:
            raise relation_error(f"dim (={self.dim}) must be divisible by heads (={self.heads})", at=("heads",))
        if self.pool == "token" and not self.class_token:
            raise relation_error("pool: token needs class_token: true; use pool: avg", at=("pool",))
        for name in ("mlp_ratio", "pool_mlp_ratio"):
            ratio = getattr(self, name)
            if ratio is not None and _hidden(self.dim, ratio) < 1:
                raise relation_error(f"{name} (={ratio}) leaves an empty MLP at dim {self.dim}", at=(name,))
        if self.model_fields_set <= _ALWAYS_WRITTEN:
            return self  # the searched spaces are of such bodies, and want them checked fast
        for name, wrong, reason in self._contradictions():
            if wrong:
                value = getattr(self, name)
                shown = str(value).lower() if isinstance(value, bool) else "..." if name == "rope" else value
                raise relation_error(f"{name}: {shown} {reason}", at=(name,))
        if self.pretrained is not None:
            self._check_weights(self.pretrained)
        return self

    def _contradictions(self) -> list[tuple[str, bool, str]]:
        """Return (field, whether it contradicts another, why) for all that timm's two classes cannot do."""
        own_heads, own_ratio = self.pool_heads is not None, self.pool_mlp_ratio is not None
        prefix, is_eva, is_map = self.prefix_tokens > 0, self.is_eva, self.pool == "map"
        only_with_rope = "is only in timm's models with rope or k_bias: false"
        never_with_rope = "is not in timm's models with rope or k_bias: false"
        return [
            ("pool_heads", own_heads and not is_map, "needs pool: map"),
            ("pool_heads", own_heads and not is_eva, only_with_rope),
            ("pool_heads", own_heads and self.dim % (self.pool_heads or 1) > 0, f"must divide dim (={self.dim})"),
            ("pool_mlp_ratio", own_ratio and not is_map, "needs pool: map"),
            ("pool_mlp_ratio", own_ratio and not is_eva, only_with_rope),
            ("pool_include_prefix", self.pool_include_prefix and not prefix, "needs a class token or registers"),
            ("pool_include_prefix", self.pool_include_prefix and self.pool == "token", "needs pool: avg or map"),
            ("pool_include_prefix", self.pool_include_prefix and is_eva and not is_map, never_with_rope),
            ("pool", is_map and is_eva and prefix and not self.pool_include_prefix, "here needs pool_include_prefix"),
            ("pool", is_map and not is_eva and self.mlp == "swiglu_packed", "is not in timm's with mlp: swiglu_packed"),
            ("distilled", self.distilled and self.pool != "token", "needs pool: token"),
            ("distilled", self.distilled and self.reg_tokens > 0, "does not go with reg_tokens"),
            ("distilled", self.distilled and self.pos_embed != "all", "needs pos_embed: all"),
            ("distilled", self.distilled and is_eva, never_with_rope),
            ("rope", self.rope is not None and self.dim // self.heads % 4 > 0, "needs dim / heads divisible by 4"),
            ("fc_norm", self.fc_norm is not None and not self.final_norm, "is about a final norm; there is none"),
            ("post_norm", self.post_norm and is_eva and self.qk_norm, "does not go with qk_norm"),
            ("layer_scale", self.layer_scale is not None and self.post_norm and is_eva, "does not go with post_norm"),
            ("k_bias", not self.k_bias and not self.qkv_bias, "says nothing where qkv_bias is false"),
            ("proj_bias", not self.proj_bias and is_eva, never_with_rope),
            ("qkv_fused", not self.qkv_fused and not is_eva, only_with_rope),
            ("mlp", self.mlp == "swiglu_packed" and is_eva and self.scale_mlp_norm, "does not go with scale_mlp_norm"),
            ("act", self.act != "gelu" and self.mlp != "mlp", f"does not go with mlp: {self.mlp}, whose gate is SiLU"),
            ("act", self.act != "gelu" and is_eva, never_with_rope),
        ]

    def _check_weights(self, name: str) -> None:
        theirs = BodySpec.model_validate(fields_of(name))
        for field in BodySpec.model_fields:
            own, other = getattr(self, field), getattr(theirs, field)
            if field != "pretrained" and own != other:
                raise relation_error(
                    f"{field} is {short(own)} here but {short(other)} in the pretrained {name}", at=(field,)
                )

    @property
    def mlp_hidden(self) -> int:
        """The hidden width of the MLPs: mlp_ratio * dim, rounded down as timm does (but safe from 3/7 * 7 = 2.99..)."""
        return _hidden(self.dim, self.mlp_ratio)

    @property
    def pool_hidden(self) -> int | None:
        """The hidden width of the attention pooling's MLP, where it is not that of the blocks."""
        return None if self.pool_mlp_ratio is None else _hidden(self.dim, self.pool_mlp_ratio)

    @property
    def prefix_tokens(self) -> int:
        """How many tokens stand before those of the patches."""
        return int(self.class_token) + int(self.distilled) + self.reg_tokens

    @property
    def is_eva(self) -> bool:
        """Whether timm's Eva builds it, not VisionTransformer: the one with rotary embeddings and keys without bias."""
        return self.rope is not None or not self.k_bias

    @property
    def norm_behind_pool(self) -> bool:
        """Whether the final norm, if there is one, stands behind the pooling."""
        return self.pool == "avg" if self.fc_norm is None else self.fc_norm


def _hidden(dim: int, ratio: float) -> int:
    return int(dim * ratio + 1e-6)
