"""Fuse a trained stem for inference: batch norms into convolutions, parallel branches into one (arXiv 2101.03697)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.benchmark import Timer

from ..errors import SpecError
from ..spec import StemSpec, Trace
from ..spec.layers import ConvLayer, LayerSpec, NormLayer, ParallelLayer, PatchifyLayer, Shape
from .kernel import Kernel, add, affine_of
from .stem import Stem


@dataclass(frozen=True)
class Saving:
    """What fusing a stem saves. Latencies are medians in milliseconds for one batch, in eval mode."""

    layers: tuple[int, int]
    params: tuple[int, int]
    flops: tuple[int, int]
    latency: tuple[float, float] | None
    batch: int
    device: str

    def __str__(self) -> str:
        pieces = [f"{name} {a:,} -> {b:,}" for name, (a, b) in (("layers", self.layers), ("params", self.params))]
        if self.latency:
            before, after = self.latency
            pieces.append(
                f"latency {before:.2f} -> {after:.2f} ms ({after / before - 1:+.0%}; batch {self.batch}, {self.device})"
            )
        return ", ".join(pieces)


class FusedStem(Stem):
    """A stem without the batch norms and branches that inference does not need; `saving` says what that is worth."""

    saving: Saving


@dataclass(frozen=True)
class _Kept:
    """A layer that stays as it is, with its trained module."""

    layer: LayerSpec
    module: nn.Module


@dataclass(frozen=True)
class _Branches:
    """A parallel layer whose branches are fused inside."""

    layer: ParallelLayer
    branches: tuple[tuple[_Piece, ...], ...]


_Piece = Kernel | _Kept | _Branches


@torch.no_grad()
def fuse(stem: Stem, measure: bool = True, batch: int = 1) -> FusedStem:
    """Return a stem that computes what `stem` does in eval mode, with fewer layers; `stem` itself is not touched.

    Batch norms fold into the convolutions before them (or behind, where no padding is in the way), standardised
    weights are written out, and sums of convolutions, batch norms and identities become one convolution. The result
    has a spec of its own, with what is left. `measure` times both on the stem's device, at its image size.

    The outputs agree within 1e-4 of their size: sums are rounded in another order.
    """
    if not isinstance(stem, Stem):
        raise SpecError(f"fuse: expected a stem made by stemlab (model.patch_embed), got {type(stem).__name__}")
    trace = stem.spec.trace(*stem.img_size, stem.embed_dim, stem.in_chans)
    pieces = _fused(trace, stem.layers)
    spec = StemSpec(layers=_layers(pieces, trace.start, trace.dim))
    fused = FusedStem.in_place_of(stem, spec, stem.embed_dim, stem.img_size)
    _load(fused.layers, pieces)
    fused.eval()
    after = spec.trace(*stem.img_size, stem.embed_dim, stem.in_chans)
    example = next(stem.parameters(), torch.empty(0))
    fused.saving = Saving(
        layers=(_count(trace), _count(after)),
        params=(trace.counts.params, after.counts.params),
        flops=(trace.counts.flops, after.counts.flops),
        latency=_latencies(stem, fused, batch, example) if measure else None,
        batch=batch,
        device=str(example.device),
    )
    return fused


def _fused(trace: Trace, modules: Iterable[nn.Module]) -> list[_Piece]:
    pieces: list[_Piece] = []
    for step, module in zip(trace, modules, strict=True):
        last = pieces[-1] if pieces else None
        piece = _piece(step.layer, module, step.before, trace.dim)
        if isinstance(last, Kernel) and _is_batch_norm(piece):
            pieces[-1] = last.then(affine_of(module))
            continue
        if isinstance(piece, Kernel) and isinstance(last, _Kept) and _is_batch_norm(last):
            behind = piece.after(affine_of(last.module))
            if behind is not None:
                pieces[-1] = behind
                continue
        pieces.append(piece)
    return pieces


def _is_batch_norm(piece: _Piece) -> bool:
    return isinstance(piece, _Kept) and isinstance(piece.layer, NormLayer) and piece.layer.kind == "batch"


def _piece(layer: LayerSpec, module: nn.Module, before: Shape, dim: int) -> _Piece:
    if isinstance(layer, ConvLayer | PatchifyLayer):
        return Kernel.of(layer, module)
    if not isinstance(layer, ParallelLayer):
        return _Kept(layer, module)
    traces = layer.traces(before, dim)
    branches = [
        tuple(_fused(trace, inside))
        for trace, inside in zip(traces, module.branches, strict=True)  # type: ignore[arg-type]
    ]
    if layer.merge == "sum" and layer.split is None:
        kernels = [_as_kernel(branch, before.channels) for branch in branches]
        # Broadcast sums are not sums of kernels.
        if None not in kernels and len({trace.end for trace in traces}) == 1:
            total = add([kernel for kernel in kernels if kernel is not None])
            if total is not None:
                return total
    return _Branches(layer, tuple(branches))


def _as_kernel(branch: Sequence[_Piece], channels: int) -> Kernel | None:
    if not branch:
        return Kernel.diagonal(channels, None)
    (first, *rest) = branch
    if rest:
        return None
    if isinstance(first, _Kept) and _is_batch_norm(first):
        return Kernel.diagonal(channels, affine_of(first.module))
    return first if isinstance(first, Kernel) else None


def _layers(pieces: Sequence[_Piece], start: Shape, dim: int) -> tuple[LayerSpec, ...]:
    """Return the specs of pieces, following the channels from one to the next."""
    layers: list[LayerSpec] = []
    shape = start
    for piece in pieces:
        if isinstance(piece, Kernel):
            layers.append(piece.as_layer(shape.channels))
        elif isinstance(piece, _Branches):
            parts = piece.layer.parts(shape.channels, dim) or (shape.channels,) * len(piece.branches)
            inside = [
                _layers(branch, shape._replace(channels=part), dim)
                for branch, part in zip(piece.branches, parts, strict=True)
            ]
            layers.append(piece.layer.replace(branches=inside))
        else:
            layers.append(piece.layer)
        shape = layers[-1].output(shape, dim)
    return tuple(layers)


def _load(modules: Iterable[nn.Module], pieces: Sequence[_Piece]) -> None:
    for module, piece in zip(modules, pieces, strict=True):
        if isinstance(piece, Kernel):
            conv = module[-1] if isinstance(module, nn.Sequential) else module
            conv.weight.copy_(piece.weight)  # type: ignore[operator]
            conv.bias.copy_(piece.bias)  # type: ignore[operator]
        elif isinstance(piece, _Branches):
            for inside, branch in zip(module.branches, piece.branches, strict=True):  # type: ignore[arg-type]
                _load(inside, branch)
        else:
            module.load_state_dict(piece.module.state_dict())


def _count(trace: Trace) -> int:
    """Return the number of layers, those of branches in place of the layer that merges them."""
    return sum(not step.layer.traces(step.before, trace.dim) for step in trace.all_steps())


def _latencies(stem: Stem, fused: Stem, batch: int, example: torch.Tensor) -> tuple[float, float]:
    image = torch.randn(batch, stem.in_chans, *stem.img_size, device=example.device, dtype=example.dtype)
    training = stem.training
    stem.eval()
    try:
        timers = [Timer("stem(x)", globals={"stem": each, "x": image}) for each in (stem, fused)]
        for timer in timers:
            timer.timeit(2)  # warm up
        before, after = (timer.blocked_autorange(min_run_time=0.2).median * 1000 for timer in timers)
    finally:
        stem.train(training)
    return before, after
