"""What is written on a layer, and how it looks."""

from __future__ import annotations

from dataclasses import dataclass

from ..quantities import human
from ..spec.base import pair
from ..spec.layers import (
    ActLayer,
    ConvLayer,
    NormLayer,
    PadLayer,
    ParallelLayer,
    PatchifyLayer,
    PoolLayer,
    Shape,
    SpaceToDepthLayer,
    Step,
)
from .text import side, size

_ACTS = {
    "relu": "ReLU",
    "scaled_relu": "scaled ReLU",
    "leaky_relu": "leaky ReLU",
    "prelu": "PReLU",
    "relu6": "ReLU6",
    "gelu": "GELU",
    "gelu_tanh": "GELU (tanh)",
    "quick_gelu": "quick GELU",
    "silu": "SiLU",
    "elu": "ELU",
    "selu": "SELU",
    "celu": "CELU",
    "mish": "Mish",
}


@dataclass(frozen=True)
class Label:
    """The words on a layer: in bold, behind them, below them; its stride where that is not one; its look."""

    name: str
    more: str = ""
    details: tuple[str, ...] = ()
    stride: str = ""
    look: str = "other"


def label(step: Step) -> Label:
    """Return the words on a layer that is drawn as a box or a strip."""
    layer, before, after = step.layer, step.before, step.after
    stride = layer.window[2:]
    badge = "" if stride == (1, 1) else f"↓{side(stride)}"
    channels = f", {after.channels}"
    if isinstance(layer, ConvLayer):
        return Label(f"{size(pair(layer.kernel))} conv", channels, _extras(layer, before, after), badge, "conv")
    if isinstance(layer, PatchifyLayer):
        bias = ("bias",) if layer.bias else ()
        return Label(f"{size(pair(layer.patch))} patchify", channels, bias, badge, "patchify")
    if isinstance(layer, PoolLayer):
        kernel = "" if layer.kernel is None else f"{size(pair(layer.kernel))} "
        return Label(f"{kernel}{layer.kind} pool", stride=badge, look="move")
    if isinstance(layer, SpaceToDepthLayer):
        return Label("space to depth", channels, stride=badge, look="move")
    if isinstance(layer, PadLayer):
        return Label(layer.describe(), look="move")
    if isinstance(layer, NormLayer):
        groups = f" ({layer.groups})" if layer.groups else ""
        return Label(f"{layer.kind} norm{groups}{layer.lacks}", look="norm")
    if isinstance(layer, ActLayer):
        gain = f" · gain {layer.gain:.3g}" if layer.gain is not None else ""
        return Label(f"{_ACTS.get(layer.kind, layer.kind)}{gain}", look="act")
    name = layer.op
    words = layer.describe()
    details = () if words == name else tuple(words.removeprefix(name).split())
    return Label(name, channels if after.channels != before.channels else "", details, badge)


def _extras(layer: ConvLayer, before: Shape, after: Shape) -> tuple[str, ...]:
    groups = layer.group_count(before.channels)
    kind = "depthwise" if groups == before.channels > 1 else f"{groups} groups" if groups > 1 else ""
    dilation = "" if pair(layer.dilation) == (1, 1) else f"dilation {side(pair(layer.dilation))}"
    return tuple(
        filter(None, (kind, dilation, "std. weights" if layer.standardize else "", "bias" if layer.bias else ""))
    )


def tooltip(step: Step, times: int = 1) -> str:
    """Return all that is known of a layer, in a line."""
    flops, params = human(step.counts.flops), human(step.counts.params)
    what = step.layer.describe()
    if isinstance(step.layer, ParallelLayer):
        what = f"{len(step.layer.branches)} branches, {step.layer.merge}"
    op = step.layer.op
    line = f"{op}: {what}; {size(step.before)} → {size(step.after)}; {flops} multiply-adds, {params} parameters"
    return f"{line}; {times} times" if times > 1 else line
