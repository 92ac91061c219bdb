"""Kernel: a trained convolution as an algebraic thing, into which norms fold and to which others can be added.

The algebra is that of re-parameterised networks (arXiv 2101.03697): in eval mode batch norm is a scale and a shift a
channel, an identity is a 1x1 convolution, and convolutions of one stride add up to one whose kernel holds them all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..spec.base import pair
from ..spec.layers import ConvLayer, PatchifyLayer, Standardize
from ..spec.layers.padding import Sides, sides_of

Affine = tuple[torch.Tensor, torch.Tensor]
"""A scale and a shift a channel."""


@dataclass(frozen=True)
class Kernel:
    """What a convolution computes in eval mode; weight (out, in / groups, height, width) and bias in float64.

    `sides` is None where the padding depends on the input, as TensorFlow's does. `layer` is what it was written as.
    """

    layer: ConvLayer | PatchifyLayer
    weight: torch.Tensor
    bias: torch.Tensor
    stride: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    sides: Sides | None

    @classmethod
    def of(cls, layer: ConvLayer | PatchifyLayer, module: nn.Module) -> Kernel:
        """Return the kernel of a layer's module; standardised weights as they come out."""
        conv: Any = module[-1] if isinstance(module, nn.Sequential) else module
        sides: Sides | None = (0, 0, 0, 0)
        stride, dilation, groups, weight = pair(layer.window[2:]), (1, 1), 1, conv.weight
        if isinstance(layer, ConvLayer):
            dilation, groups, sides = pair(layer.dilation), conv.groups, sides_of(layer.padding)
            weight = _standardised(conv, layer.standardize) if layer.standardize else weight
        weight = _exact(weight)
        bias = weight.new_zeros(len(weight)) if conv.bias is None else _exact(conv.bias)
        return cls(layer, weight, bias, stride, dilation, groups, sides)

    @classmethod
    def diagonal(cls, channels: int, affine: Affine | None) -> Kernel:
        """Return the depthwise 1x1 kernel that is the identity, or a scale and a shift."""
        one = torch.ones(channels, dtype=torch.float64)
        scale, shift = affine or (one, torch.zeros_like(one))
        layer = ConvLayer(channels=channels, kernel=1, groups="depthwise", bias=True)
        return cls(layer, scale.reshape(-1, 1, 1, 1), shift, (1, 1), (1, 1), channels, (0, 0, 0, 0))

    def then(self, affine: Affine) -> Kernel:
        """Return the kernel followed by a scale and a shift."""
        scale, shift = affine
        return replace(self, weight=self.weight * scale.reshape(-1, 1, 1, 1), bias=self.bias * scale + shift)

    def after(self, affine: Affine) -> Kernel | None:
        """Return the kernel with a scale and a shift before it; None where padding would see the shift."""
        scale, shift = affine
        if self.sides != (0, 0, 0, 0) and bool(shift.any()):
            return None
        # Row o of the weights reads the channels of o's group.
        groups = torch.arange(len(self.weight)) // (len(self.weight) // self.groups)
        scales, shifts = (value.reshape(self.groups, -1)[groups] for value in (scale, shift))
        bias = self.bias + torch.einsum("oihw,oi->o", self.weight, shifts)
        return replace(self, weight=self.weight * scales[..., None, None], bias=bias)

    def as_layer(self, channels: int) -> ConvLayer | PatchifyLayer:
        """Return the layer that computes this, for an input of so many channels."""
        if isinstance(self.layer, PatchifyLayer):
            return self.layer.replace(bias=True)
        height, width = self.weight.shape[2:]
        depthwise = self.groups == channels and channels > 1
        return ConvLayer(
            channels=self.layer.channels,
            kernel=(height, width),
            stride=self.stride,
            padding="tf_same" if self.sides is None else self.sides,
            dilation=self.dilation,
            groups="depthwise" if depthwise else self.groups,
            bias=True,
        )


def affine_of(norm: nn.Module) -> Affine:
    """Return the scale and shift that a batch norm is in eval mode, in float64."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance = _exact(norm.running_mean), _exact(norm.running_var)
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is None:
        return scale, -mean * scale
    scale = scale * _exact(norm.weight)
    shift = torch.zeros_like(mean) if norm.bias is None else _exact(norm.bias)
    return scale, shift - mean * scale


def add(kernels: Sequence[Kernel]) -> Kernel | None:
    """Return the one kernel that computes the sum of all, at every image size; None where there is none."""
    kernels = [_explicit(kernel) for kernel in kernels]
    largest = max(kernels, key=lambda kernel: kernel.weight[0, 0].numel())
    strides, dilations = {k.stride for k in kernels}, {k.dilation for k in kernels if k.weight[0, 0].numel() > 1}
    if len(strides) > 1 or len(dilations) > 1 or any(isinstance(k.layer, PatchifyLayer) for k in kernels):
        return None
    if largest.sides is None and {(k.sides, k.weight.shape[2:]) for k in kernels} != {(None, largest.weight.shape[2:])}:
        return None
    groups = math.gcd(*(kernel.groups for kernel in kernels))
    placed = [_within(_regrouped(kernel, groups), kernel, largest) for kernel in kernels]
    weights = [weight for weight in placed if weight is not None]
    if len(weights) < len(kernels):
        return None
    weight, bias = torch.stack(weights).sum(0), torch.stack([kernel.bias for kernel in kernels]).sum(0)
    # "dim" says more than the number it is here.
    named = next((k.layer for k in kernels if isinstance(k.layer.channels, str)), largest.layer)
    return replace(largest, layer=named, weight=weight, bias=bias, groups=groups)


def _exact(values: torch.Tensor) -> torch.Tensor:
    """Return values in float64, on the CPU, because not every device has that."""
    return values.detach().to("cpu", torch.float64)


def _standardised(conv: Any, how: Standardize) -> torch.Tensor:
    weight = _exact(conv.weight)
    variance, mean = torch.var_mean(weight, dim=(1, 2, 3), keepdim=True, correction=0)
    weight = (weight - mean) * (variance + how.eps).rsqrt()
    return weight * _exact(conv.gain) * conv.scale if how.gain else weight


def _explicit(kernel: Kernel) -> Kernel:
    """Write TensorFlow's padding out where it does not depend on the input: at stride 1."""
    if kernel.sides is not None or kernel.stride != (1, 1):
        return kernel
    height, width = (d * (k - 1) for d, k in zip(kernel.dilation, kernel.weight.shape[2:], strict=True))
    return replace(kernel, sides=(width // 2, width - width // 2, height // 2, height - height // 2))


def _regrouped(kernel: Kernel, groups: int) -> torch.Tensor:
    """Return the weight in fewer groups, with zeros where the kernel reads nothing."""
    weight, (out, part) = kernel.weight, kernel.weight.shape[:2]
    wide = part * kernel.groups // groups
    result = weight.new_zeros(out, wide, *weight.shape[2:])
    rows = out // kernel.groups
    for group in range(kernel.groups):
        start = group * part % wide
        result[group * rows : (group + 1) * rows, start : start + part] = weight[group * rows : (group + 1) * rows]
    return result


def _within(weight: torch.Tensor, kernel: Kernel, largest: Kernel) -> torch.Tensor | None:
    """Return the weight in the place that it has in the largest kernel; None where it has none."""
    if kernel.sides is None or largest.sides is None:
        return weight
    margins = []
    for axis, (begin, end) in ((3, (0, 1)), (2, (2, 3))):
        step = largest.dilation[axis - 2]
        size, most = weight.shape[axis], largest.weight.shape[axis]
        before, behind = largest.sides[begin] - kernel.sides[begin], largest.sides[end] - kernel.sides[end]
        if before % step or before < 0 or before + behind != step * (most - size):
            return None
        offset = before // step
        if offset > most - size:
            return None
        margins += [offset, most - size - offset]
    return F.pad(weight, margins)
