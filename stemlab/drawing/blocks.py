"""What is drawn as one: a layer with the norms and activations behind it, and what repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..spec.layers import Counts, Step, Trace

_FEWEST_PLAIN = 3
_LONGEST_PERIOD = 8


@dataclass(frozen=True)
class Block:
    """A layer (`head`) and the norms and activations that follow it; or such alone, without a head.

    Where blocks repeat, one stands for `times` of them: its steps are those of the last.
    """

    head: Step | None
    strips: tuple[Step, ...]
    dim: int
    times: int = 1

    @property
    def steps(self) -> tuple[Step, ...]:
        """The head and what follows it."""
        return (*(() if self.head is None else (self.head,)), *self.strips)

    @property
    def last(self) -> Step:
        """The step that gives the block's output."""
        return self.steps[-1]

    @property
    def counts(self) -> Counts:
        """What all repetitions cost together."""
        return Counts(*(self.times * sum(row) for row in zip(*(step.counts for step in self.steps), strict=True)))

    @property
    def branches(self) -> tuple[Trace, ...]:
        """The ways through a parallel head."""
        return () if self.head is None else self.head.layer.traces(self.head.before, self.dim)

    @property
    def changes_nothing(self) -> bool:
        """Whether these are norms and activations alone: the shape stays, and there are no multiply-adds."""
        return self.head is None and not self.counts.flops

    def alike(self) -> tuple[Any, ...]:
        """Return what two blocks must share to be one repeated."""
        return tuple((step.layer, step.before, step.after) for step in self.steps)


@dataclass(frozen=True)
class Run:
    """Blocks in a row, `times` times."""

    blocks: tuple[Block, ...]
    times: int = 1


def runs(trace: Trace) -> tuple[Run, ...]:
    """Return the blocks of a trace, those that repeat once with their number.

    Blocks with branches collapse from two on, plain layers from three on: a short stack is better seen.
    """
    blocks = _blocks(trace)
    names: dict[tuple[Any, ...], int] = {}
    kinds = [names.setdefault(block.alike(), len(names)) for block in blocks]
    found: list[Run] = []
    start = 0
    while start < len(blocks):
        period, times = _repetition(kinds, start)
        first = blocks[start : start + period]
        if times < (2 if any(block.branches for block in first) else _FEWEST_PLAIN):
            period, times = 1, 1
        end = start + period * times
        last = blocks[end - period : end]
        found.append(Run(tuple(replace(block, times=times) for block in last), times))
        start = end
    return tuple(found)


def _blocks(trace: Trace) -> list[Block]:
    blocks: list[Block] = []
    for step in trace:
        if step.layer.takes == "other":
            blocks.append(Block(step, (), trace.dim))
        elif blocks:
            blocks[-1] = replace(blocks[-1], strips=(*blocks[-1].strips, step))
        else:
            blocks.append(Block(None, (step,), trace.dim))
    return [piece for index, block in enumerate(blocks) for piece in _parted(block, blocks[index - 1 : index])]


def _parted(block: Block, before: Sequence[Block]) -> tuple[Block, ...]:
    """Return a block that repeats the one before it but for a norm behind it as two, so that the repetition shows."""
    heads = [other.head[:3] for other in (*before, block) if other.branches and other.head]
    if block.strips and len(heads) == 2 and heads[0] == heads[1] and not before[0].strips:
        return replace(block, strips=()), replace(block, head=None)
    return (block,)


def _repetition(kinds: Sequence[int], start: int) -> tuple[int, int]:
    """Return the period and the number of repetitions, from `start` on, that cover most; of equals the shortest."""
    best = (1, 1)
    for period in range(1, min(_LONGEST_PERIOD, (len(kinds) - start) // 2) + 1):
        pattern, times = kinds[start : start + period], 1
        while kinds[start + times * period : start + (times + 1) * period] == pattern:
            times += 1
        if times > 1 and period * times > best[0] * best[1]:
            best = (period, times)
    return best
