"""Trace: the way of a feature map through a list of layers."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from .base import Counts, ExpandedIndex, LayerSpec, Shape, ShapeError

if TYPE_CHECKING:
    from torch import nn


Lengths = tuple[int, int]


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

    def all_steps(self) -> Iterator[Step]:
        """Yield the steps, those within branches behind the one that holds them."""
        for step in self:
            yield step
            for branch in step.layer.traces(step.before, self.dim):
                yield from branch.all_steps()

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
    shape, field, stride = start, (1, 1), (1, 1)
    steps = []
    for index, layer in enumerate(layers):
        try:
            after = layer.output(shape, dim)
        except ShapeError as error:
            raise ShapeError(str(error), (ExpandedIndex(index), *error.path)) from None
        field, stride = _behind(field, stride, layer.reach(shape, dim), layer.window[2:])
        steps.append(Step(layer, shape, after, layer.cost(shape, after, dim), field, stride))
        shape = after
    trace = Trace(steps)
    trace.start, trace.dim = start, dim
    return trace


def window_of(layers: Sequence[LayerSpec]) -> tuple[int, int, int, int]:
    """Return the kernel and stride of layers taken as one, as far as no shape decides them."""
    kernel, stride = (1, 1), (1, 1)
    for layer in layers:
        kernel, stride = _behind(kernel, stride, layer.window[:2], layer.window[2:])
    return (*kernel, *stride)


def _behind(field: Lengths, stride: Lengths, kernel: Lengths, step: Lengths) -> tuple[Lengths, Lengths]:
    """Return the receptive field and stride behind one more layer, which has that kernel and that stride."""
    (fh, fw), (sh, sw), (kh, kw) = field, stride, kernel
    return (fh + (kh - 1) * sh, fw + (kw - 1) * sw), (sh * step[0], sw * step[1])


def init(layers: Sequence[LayerSpec], modules: Iterable[nn.Module], behind: str) -> None:
    """Initialise the modules of layers in a row; `behind` is what takes the last one's output."""
    takers = [*(layer.takes for layer in layers), behind][1:]
    for layer, module, taker in zip(layers, modules, takers, strict=True):
        layer.init(module, taker)
