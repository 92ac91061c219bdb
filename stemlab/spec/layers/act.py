"""Activation, with the scaled ReLU among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, PlainValidator, WithJsonSchema, model_validator

from ..base import Flag, SignedNumber, given, relation_error
from .base import Counts, LayerSpec, Shape, kind_schema, parse_kind

if TYPE_CHECKING:
    from torch import nn

ActKind = Literal[
    "relu", "scaled_relu", "gelu", "gelu_tanh", "silu", "hardswish", "leaky_relu", "prelu", "relu6", "elu",
    "mish", "tanh", "sigmoid", "hardsigmoid", "quick_gelu", "selu", "celu", "softplus",
]  # fmt: skip

_OWN: dict[str, dict[str, Any]] = {
    "scaled_relu": {"scale": 1.0, "shift": 0.0, "learn": True},
    "leaky_relu": {"negative_slope": 0.01},
    "prelu": {"negative_slope": 0.25},
    "elu": {"alpha": 1.0},
    "celu": {"alpha": 1.0},
}
"""The parameters of the kinds that have some, and their defaults."""


class ActLayer(LayerSpec):
    """Activation. `scaled_relu` is y = relu(scale * x + shift) per channel, without batch statistics.

    With batch norm before `relu` (the scaled ReLU of arXiv 2109.03810) it separates the two ingredients of
    BN + ReLU: the batch statistics, and the learned scale and shift. `gain` multiplies the result, as the
    variance-keeping activations of arXiv 2102.06171 do.
    """

    takes: ClassVar[str] = "act"

    op: Literal["act"] = "act"
    kind: ActKind
    scale: SignedNumber | None = None
    shift: SignedNumber | None = None
    learn: Flag | None = None
    negative_slope: SignedNumber | None = None
    alpha: SignedNumber | None = None
    gain: Annotated[SignedNumber, AfterValidator(lambda gain: None if gain == 1 else gain)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {"kind": data}
        if isinstance(data, dict):
            own = _OWN.get(str(data.get("kind")), {})
            for name in ("scale", "shift", "learn", "negative_slope", "alpha"):
                if data.get(name) is not None and name not in own:
                    raise relation_error(f"{name} is not a parameter of {data.get('kind')}", at=(name,))
            data = {**own, **given(data)}
            if data.get("alpha") == 0:
                raise relation_error(f"alpha of {data['kind']} must not be 0", at=("alpha",))
        return data

    def describe(self) -> str:
        """Return the layer in a few words."""
        gain = f", gain {self.gain:g}" if self.gain is not None else ""
        if self.kind == "scaled_relu":
            learned = "learned" if self.learn else "fixed"
            return f"scaled_relu, scale {self.scale:g}, shift {self.shift:g}, {learned}{gain}"
        return self.kind + gain

    def cost(self, before: Shape, after: Shape, dim: int) -> Counts:
        """Learned parameters only: two a channel for a learning scaled ReLU, one for PReLU (arXiv 1502.01852)."""
        if self.kind == "prelu":
            return Counts(params=after.channels)
        return Counts(params=2 * after.channels if self.learn else 0)

    def build(self, before: Shape, after: Shape, dim: int) -> nn.Module:
        """Return torch's activation, or timm's or ours where torch has none."""
        from timm.layers import create_act_layer
        from torch import nn

        from ...modules.gain import Gain
        from ...modules.scaled_relu import ScaledReLU

        channels = before.channels
        makers: dict[str, Callable[[], nn.Module]] = {
            "relu": nn.ReLU,
            "scaled_relu": lambda: ScaledReLU(
                channels, float(self.scale or 0), float(self.shift or 0), bool(self.learn)
            ),
            "gelu": nn.GELU,
            "silu": nn.SiLU,
            "hardswish": nn.Hardswish,
            "leaky_relu": lambda: nn.LeakyReLU(float(self.negative_slope or 0)),
            "prelu": lambda: nn.PReLU(channels, init=float(self.negative_slope or 0)),
            "relu6": nn.ReLU6,
            "elu": lambda: nn.ELU(float(self.alpha or 1)),
            "mish": nn.Mish,
            "tanh": nn.Tanh,
            "sigmoid": nn.Sigmoid,
            "hardsigmoid": nn.Hardsigmoid,
            "selu": nn.SELU,
            "celu": lambda: nn.CELU(float(self.alpha or 1)),
            "softplus": nn.Softplus,
        }
        module = makers[self.kind]() if self.kind in makers else create_act_layer(self.kind)
        return module if self.gain is None else Gain(module, self.gain)


def parse_act(value: Any) -> ActLayer | None:
    """Return the activation that a name, a mapping or "none" stands for."""
    return parse_kind(value, "activation", get_args(ActKind), ActLayer)


ACT_SCHEMA = kind_schema(get_args(ActKind))
Act = Annotated[ActLayer | None, PlainValidator(parse_act), WithJsonSchema(ACT_SCHEMA)]
