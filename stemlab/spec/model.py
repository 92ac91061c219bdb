"""BodySpec, MatchSpec and ModelSpec: what one model is."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from ..errors import nearest, one_of, short
from .base import Flag, Number, Pair, PositiveInt, Spec, pair, relation_error, spec_error
from .layers import ShapeError, Trace
from .stem import StemSpec

# Widths, depths and heads of timm's plain ViTs, by the size in their names (arXiv 2010.11929, 2012.12877).
_TIMM_SIZES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}
_TIMM_NAME = re.compile(r"(vit|deit)_(\w+?)_patch\d+(_\d+)?$")


class BodySpec(Spec):
    """A plain ViT without its stem, or the name of one of timm's, such as `vit_small_patch16_224`."""

    dim: PositiveInt
    depth: PositiveInt
    heads: PositiveInt
    mlp_ratio: Annotated[Number, Field(gt=0)] = 4.0
    qkv_bias: Flag = True
    class_token: Flag = True
    pool: Literal["token", "avg"] = "token"

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        if isinstance(data, str):
            names = [f"{family}_{size}_patch16_224" for family in ("vit", "deit") for size in _TIMM_SIZES]
            found = _TIMM_NAME.match(data)
            if not found or found[2] not in _TIMM_SIZES:
                raise spec_error(
                    f"unknown body {short(data)}; expected fields, or {one_of(names)}{nearest(data, names)}"
                )
            dim, depth, heads = _TIMM_SIZES[found[2]]
            data = {"dim": dim, "depth": depth, "heads": heads}
        if isinstance(data, dict) and "pool" not in data:
            data = {**data, "pool": "avg" if data.get("class_token") is False else "token"}
        return data

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Allow the name of a body too."""
        fields = handler.resolve_ref_schema(handler(schema))
        return {"anyOf": [{"type": "string", "description": "one of timm's, such as vit_small_patch16_224"}, fields]}

    @model_validator(mode="after")
    def _agrees(self) -> BodySpec:
        if self.dim % self.heads:
            raise relation_error(f"dim (={self.dim}) must be divisible by heads (={self.heads})", at=("heads",))
        if self.pool == "token" and not self.class_token:
            raise relation_error("pool: token needs class_token: true; use pool: avg", at=("pool",))
        if self.mlp_hidden < 1:
            raise relation_error(
                f"mlp_ratio (={self.mlp_ratio}) leaves an empty MLP at dim {self.dim}", at=("mlp_ratio",)
            )
        return self

    @property
    def mlp_hidden(self) -> int:
        """The hidden width of the MLPs: mlp_ratio * dim, rounded down as timm does (but safe from 3/7 * 7 = 2.99..)."""
        return int(self.dim * self.mlp_ratio + 1e-6)


class MatchSpec(Spec):
    """Make the whole model cost what the same body costs with the `reference` stem.

    `adjust: [depth]` is the rule of arXiv 2106.14881 (drop blocks); with `mlp` the hidden width of the MLPs, a
    multiple of 8, closes what is left. `tolerance` is the largest relative difference allowed.
    """

    reference: StemSpec
    metric: Literal["flops", "params", "activations"] = "flops"
    adjust: Annotated[tuple[Literal["depth", "mlp"], ...], Field(min_length=1)] = ("depth", "mlp")
    tolerance: Annotated[Number, Field(gt=0, lt=1)] = 0.005


class ModelSpec(Spec):
    """Exactly one model: a stem on a body, for images of one size and a number of classes.

    With `match`, depth and MLP width of the body are those of the reference; `stemlab.match` says what they become.
    """

    stem: StemSpec
    body: BodySpec
    match: MatchSpec | None = None
    image_size: Pair = 224
    classes: PositiveInt = 1000

    @model_validator(mode="after")
    def _fits(self) -> ModelSpec:
        self._check_stem(self.stem, ("stem",))
        if self.match is not None:
            self._check_stem(self.match.reference, ("match", "reference"))
        return self

    def trace(self, stem: StemSpec | None = None) -> Trace:
        """Follow an image of the model's size through its stem, or through another one put on the same body."""
        return (stem or self.stem).trace(*pair(self.image_size), self.body.dim)

    def _check_stem(self, stem: StemSpec, at: tuple[str, ...]) -> None:
        for name, size, stride in zip(("height", "width"), pair(self.image_size), stem.stride, strict=True):
            if size % stride:
                below = size // stride * stride
                sizes = f"{below} or {below + stride}" if below else f"{stride}"
                raise relation_error(
                    f"the stem's total stride (={stride}) does not divide the image's {name} (={size}); "
                    f"the nearest that works: {sizes}",
                    at=at,
                )
        try:
            end = self.trace(stem).end
        except ShapeError as error:
            raise relation_error(str(error), at=(*at, "layers", *error.path)) from None
        if end.channels != self.body.dim:
            raise relation_error(
                f"the stem ends with {end.channels} channels but the body's dim is {self.body.dim}; "
                "end it with a projection (project: true, or channels: dim in the last layer)",
                at=at,
            )
