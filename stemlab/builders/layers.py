"""From a layer's spec to its torch module."""

from __future__ import annotations

from collections.abc import Callable

from timm.layers import Conv2dSame, LayerNorm2d, RmsNorm2d
from torch import nn

from ..spec.base import pair
from ..spec.layers import ActLayer, AnyLayer, ConvLayer, NormLayer, PatchifyLayer, PoolLayer
from .patchify import Patchify
from .scaled_relu import ScaledReLU


def build_layer(layer: AnyLayer, in_channels: int, out_channels: int) -> nn.Module:
    """Return the module of one layer: (batch, in_channels, H, W) -> (batch, out_channels, H', W')."""
    if isinstance(layer, ConvLayer):
        return _conv(layer, in_channels, out_channels)
    if isinstance(layer, NormLayer):
        return _norm(layer, in_channels)
    if isinstance(layer, ActLayer):
        return _act(layer, in_channels)
    if isinstance(layer, PoolLayer):
        return _pool(layer)
    assert isinstance(layer, PatchifyLayer)
    return Patchify(in_channels, out_channels, pair(layer.patch), layer.bias)


def _conv(layer: ConvLayer, in_channels: int, out_channels: int) -> nn.Module:
    kernel, stride, dilation = pair(layer.kernel), pair(layer.stride), pair(layer.dilation)
    groups = layer.group_count(in_channels)
    if layer.padding == "tf_same":
        same: nn.Module = Conv2dSame(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            dilation=dilation,
            groups=groups,
            bias=layer.bias,
        )
        return same
    left, right, top, bottom = layer.sides()
    even = left == right and top == bottom
    conv = nn.Conv2d(
        in_channels,
        out_channels,
        kernel,
        stride,
        (top, left) if even else 0,
        dilation,
        groups,
        bias=layer.bias,
    )
    return conv if even else nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), conv)


def _norm(layer: NormLayer, channels: int) -> nn.Module:
    eps, affine = layer.eps, layer.affine
    makers: dict[str, Callable[[], nn.Module]] = {
        "batch": lambda: nn.BatchNorm2d(channels, eps=eps, affine=affine),
        "layer": lambda: LayerNorm2d(channels, eps=eps, affine=affine),
        "group": lambda: nn.GroupNorm(layer.groups or 1, channels, eps=eps, affine=affine),
        "instance": lambda: nn.InstanceNorm2d(channels, eps=eps, affine=affine),
        "rms": lambda: RmsNorm2d(channels, eps=eps, affine=affine),
    }
    return makers[layer.kind]()


_PLAIN_ACTS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "relu6": nn.ReLU6,
    "elu": nn.ELU,
    "mish": nn.Mish,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def _act(layer: ActLayer, channels: int) -> nn.Module:
    if layer.kind == "scaled_relu":
        return ScaledReLU(channels, float(layer.scale or 0), float(layer.shift or 0), bool(layer.learn))
    if layer.kind == "leaky_relu":
        return nn.LeakyReLU(float(layer.negative_slope or 0))
    if layer.kind == "prelu":
        return nn.PReLU(channels, init=float(layer.negative_slope or 0))
    return _PLAIN_ACTS[layer.kind]()


def _pool(layer: PoolLayer) -> nn.Module:
    kernel, stride, padding = pair(layer.kernel), pair(layer.stride), pair(layer.padding)
    if layer.kind == "max":
        return nn.MaxPool2d(kernel, stride, padding, ceil_mode=layer.ceil)
    return nn.AvgPool2d(kernel, stride, padding, ceil_mode=layer.ceil, count_include_pad=bool(layer.count_include_pad))
