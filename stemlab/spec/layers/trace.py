"""Trace: the way of a feature map through a list of layers."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from .base import Counts, ExpandedIndex, LayerSpec, Shape, ShapeError

if TYPE_CHECKING:
    from torch import nn


class Step(NamedTuple):
    """One layer at work: what goes in, what comes out, what it costs, what an output position sees."""

    layer: LayerSpec
    before: Shape
    after: Shape
    counts: Counts
    receptive_field: tuple[int, int]
    stride: tuple[int, int]


class Trace(tuple[Step, ...]):
    """The steps of a map's way through layers. `start` is its shape before them, `dim` the body's width."""

    start: Shape
    dim: int

    @property
    def end(self) -> Shape:
        """The shape of the last map."""
        return self[-1].after if self else self.start

    @property
    def tokens(self) -> int:
        """How many tokens the transformer gets."""
        return self.end.height * self.end.width

    @property
    def receptive_field(self) -> tuple[int, int]:
        """The height and width of the input that one position of the output sees, ignoring borders."""
        return self[-1].receptive_field if self else (1, 1)

    @property
    def stride(self) -> tuple[int, int]:
        """From one position of the output to the next, in positions of the input."""
        return self[-1].stride if self else (1, 1)

    @cached_property
    def counts(self) -> Counts:
        """What all layers cost together."""
        return Counts(*map(sum, zip(*(step.counts for step in self), strict=True))) if self else Counts()

    def build(self) -> nn.Sequential:
        """Return the torch modules of the layers, named by op and number: conv1, norm1, conv2, ..."""
        from torch import nn

        numbers: Counter[str] = Counter()
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        for step in self:
            numbers[step.layer.op] += 1
            modules[f"{step.layer.op}{numbers[step.layer.op]}"] = step.layer.build(step.before, step.after, self.dim)
        return nn.Sequential(modules)


def follow(layers: Sequence[LayerSpec], start: Shape, dim: int) -> Trace:
    """Follow a map through layers; ShapeError, with the place, where one cannot take its input."""
    shape = start
    field_h = field_w = stride_h = stride_w = 1
    steps = []
    for index, layer in enumerate(layers):
        try:
            after = layer.output(shape, dim)
        except ShapeError as error:
            raise ShapeError(str(error), (ExpandedIndex(index), *error.path)) from None
        kh, kw = layer.reach(shape, dim)
        field_h, field_w = field_h + (kh - 1) * stride_h, field_w + (kw - 1) * stride_w
        sh, sw = layer.window[2:]
        stride_h, stride_w = stride_h * sh, stride_w * sw
        counts = layer.cost(shape, after, dim)
        steps.append(Step(layer, shape, after, counts, (field_h, field_w), (stride_h, stride_w)))
        shape = after
    trace = Trace(steps)
    trace.start, trace.dim = start, dim
    return trace


def window_of(layers: Sequence[LayerSpec]) -> tuple[int, int, int, int]:
    """Return the kernel and stride of layers taken as one, as far as no shape decides them."""
    kernel_h = kernel_w = stride_h = stride_w = 1
    for layer in layers:
        kh, kw, sh, sw = layer.window
        kernel_h, kernel_w = kernel_h + (kh - 1) * stride_h, kernel_w + (kw - 1) * stride_w
        stride_h, stride_w = stride_h * sh, stride_w * sw
    return (kernel_h, kernel_w, stride_h, stride_w)


def init(layers: Sequence[LayerSpec], modules: Iterable[nn.Module], behind: str) -> None:
    """Initialise the modules of layers in a row; `behind` is what takes the last one's output."""
    takers = [*(layer.takes for layer in layers), behind][1:]
    for layer, module, taker in zip(layers, modules, takers, strict=True):
        layer.init(module, taker)
