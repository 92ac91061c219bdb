"""Normalisation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from ..base import Flag, Number, PositiveInt, given, relation_error
from .base import Counts, LayerSpec, Shape, ShapeError, kind_schema, parse_kind

if TYPE_CHECKING:
    from torch import nn

NormKind = Literal["batch", "layer", "group", "instance", "rms"]
NORM_EPS = {"batch": 1e-5, "layer": 1e-6, "group": 1e-5, "instance": 1e-5, "rms": 1e-6}
"""What is usual for each kind; published stems differ in it."""


class NormLayer(LayerSpec):
    """Normalisation. `layer` and `rms` work over the channels of each position.

    `affine` is a learned scale and shift a channel, with "scale" the scale alone; `rms` never has a shift. `momentum`
    is the weight of the newest batch in a batch norm's running statistics, torch's 0.1 unless given.
    """

    takes: ClassVar[str] = "norm"

    op: Literal["norm"] = "norm"
    kind: NormKind
    eps: Annotated[Number, Field(gt=0)] = 1e-5
    groups: PositiveInt | None = None
    affine: Flag | Literal["scale"] = True
    momentum: Annotated[Number, Field(gt=0, le=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {"kind": data}
        if isinstance(data, dict):
            kind = data.get("kind")
            if "eps" not in data and kind in NORM_EPS:
                data = {**data, "eps": NORM_EPS[kind]}
            if kind == "group":
                data = {"groups": 32, **given(data)}
            elif data.get("groups") is not None and kind in NORM_EPS:
                raise relation_error(f"groups belongs to kind: group, not to {kind}", at=("groups",))
            if data.get("momentum") is not None and kind != "batch" and kind in NORM_EPS:
                raise relation_error(f"momentum belongs to kind: batch, not to {kind}", at=("momentum",))
            if kind == "rms" and data.get("affine") == "scale":
                data = {**data, "affine": True}  # one network, one form
        return data

    def describe(self) -> str:
        """Return the layer in a few words."""
        groups = f" of {self.groups} groups" if self.groups else ""
        return f"{self.kind} norm{groups}{self.lacks}"

    @property
    def lacks(self) -> str:
        """What is missing of the learned scale and shift, to be put behind the norm's name."""
        return {True: "", "scale": ", no shift", False: ", not affine"}[self.affine]

    def output(self, shape: Shape, dim: int) -> Shape:
        """Return the shape of the result, the same as that of the input."""
        if self.kind == "instance" and shape.height * shape.width == 1:
            raise ShapeError("instance norm: a map of one position has no deviation to divide by")
        if self.groups and shape.channels % self.groups:
            raise ShapeError(f"group norm: {shape.channels} channels are not divisible by groups (={self.groups})")
        if self.groups == shape.channels and shape.height * shape.width == 1:
            raise ShapeError("group norm: a group of one value has no deviation to divide by; use fewer groups")
        return shape

    def cost(self, before: Shape, after: Shape, dim: int) -> Counts:
        """A scale and a shift per channel; no multiply-adds by the papers' convention."""
        weights = 1 if self.kind == "rms" or self.affine == "scale" else 2
        return Counts(params=weights * after.channels if self.affine else 0)

    def build(self, before: Shape, after: Shape, dim: int) -> nn.Module:
        """Return torch's norm, or timm's where it is over the channels of each position."""
        from timm.layers import LayerNorm2d, RmsNorm2d
        from torch import nn

        kinds: dict[str, Callable[..., nn.Module]] = {
            "batch": partial(nn.BatchNorm2d, momentum=0.1 if self.momentum is None else self.momentum),
            "layer": LayerNorm2d,
            "group": partial(nn.GroupNorm, self.groups or 1),
            "instance": nn.InstanceNorm2d,
            "rms": RmsNorm2d,
        }
        module = kinds[self.kind](before.channels, eps=self.eps, affine=bool(self.affine))
        if self.affine == "scale":
            module.register_parameter("bias", None)  # only the newest torch has an argument for it
        return module


def parse_norm(value: Any) -> NormLayer | None:
    """Return the norm that a name, a mapping or "none" stands for."""
    return parse_kind(value, "norm", get_args(NormKind), NormLayer)


NORM_SCHEMA = kind_schema(get_args(NormKind))
Norm = Annotated[NormLayer | None, PlainValidator(parse_norm), WithJsonSchema(NORM_SCHEMA)]
