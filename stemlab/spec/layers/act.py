"""Activation, with the scaled ReLU among them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import PlainValidator, WithJsonSchema, model_validator

from ..base import Flag, SignedNumber, given, relation_error
from .base import Counts, LayerSpec, Shape, kind_schema, parse_kind

ActKind = Literal[
    "relu", "scaled_relu", "gelu", "gelu_tanh", "silu", "hardswish", "leaky_relu", "prelu", "relu6", "elu",
    "mish", "tanh", "sigmoid",
]  # fmt: skip


class ActLayer(LayerSpec):
    """Activation. `scaled_relu` is y = relu(scale * x + shift) per channel, without batch statistics.

    With batch norm before `relu` (the scaled ReLU of arXiv 2109.03810) it separates the two ingredients of
    BN + ReLU: the batch statistics, and the learned scale and shift.
    """

    op: Literal["act"] = "act"
    kind: ActKind
    scale: SignedNumber | None = None
    shift: SignedNumber | None = None
    learn: Flag | None = None
    negative_slope: SignedNumber | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {"kind": data}
        if isinstance(data, dict):
            own = {
                "scaled_relu": {"scale": 1.0, "shift": 0.0, "learn": True},
                "leaky_relu": {"negative_slope": 0.01},
                "prelu": {"negative_slope": 0.25},
            }.get(str(data.get("kind")), {})
            for name in ("scale", "shift", "learn", "negative_slope"):
                if data.get(name) is not None and name not in own:
                    raise relation_error(f"{name} is not a parameter of {data.get('kind')}", at=(name,))
            data = {**own, **given(data)}
        return data

    def describe(self) -> str:
        """Return the layer in a few words."""
        if self.kind == "scaled_relu":
            return f"scaled_relu, scale {self.scale:g}, shift {self.shift:g}, {'learned' if self.learn else 'fixed'}"
        return self.kind

    def cost(self, before: Shape, after: Shape) -> Counts:
        """Learned parameters only: two a channel for a learning scaled ReLU, one for PReLU (arXiv 1502.01852)."""
        if self.kind == "prelu":
            return Counts(params=after.channels)
        return Counts(params=2 * after.channels if self.learn else 0)


def parse_act(value: Any) -> ActLayer | None:
    """Return the activation that a name, a mapping or "none" stands for."""
    return parse_kind(value, "activation", get_args(ActKind), ActLayer)


ACT_SCHEMA = kind_schema(get_args(ActKind))
Act = Annotated[ActLayer | None, PlainValidator(parse_act), WithJsonSchema(ACT_SCHEMA)]
