"""Where a model is measured: its stem, its blocks, and the patch tokens that come out of either."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

BATCH = 32
"""How many images a probe shows the model at a time: bounds the memory, and nothing else."""


class Unmeasurable(Exception):
    """A probe does not apply to a model; the message says why."""


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Return the blocks of a timm ViT, or raise Unmeasurable where the model is built otherwise."""
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, (nn.Sequential, nn.ModuleList)) or not isinstance(
        getattr(model, "patch_embed", None), nn.Module
    ):
        raise Unmeasurable(f"a {type(model).__name__} is not a stem (patch_embed) and a list of blocks")
    return list(blocks)


def stem_and_body(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return the parameters that learn: those of the stem, and those of all the rest."""
    stem = getattr(model, "patch_embed", None)
    inside = {id(p) for p in stem.parameters()} if isinstance(stem, nn.Module) else set()
    learning = [p for p in model.parameters() if p.requires_grad]
    return {
        "stem": [p for p in learning if id(p) in inside],
        "body": [p for p in learning if id(p) not in inside],
    }


def layer_names(model: nn.Module) -> list[str]:
    """Return the names of the layers that `watch_tokens` numbers: stem, block 1, block 2, ..."""
    return ["stem", *(f"block {number}" for number, _ in enumerate(blocks_of(model), start=1))]


@contextmanager
def mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Set training or evaluation mode inside, and the mode that was behind it."""
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)


@torch.inference_mode()
def watch_tokens(
    model: nn.Module, images: torch.Tensor, see: Callable[[int, torch.Tensor], None], batch: int = BATCH
) -> None:
    """Run the model over images and show `see` the patch tokens of each layer: its number and (batch, tokens, width).

    Layer 0 is the stem, layer n the nth block. Class and register tokens are left out. Nothing stays on the model.
    """
    prefix = int(getattr(model, "num_prefix_tokens", 0))

    def hook(layer: int) -> Callable[..., None]:
        return lambda module, inputs, output: see(layer, _patch_tokens(output, prefix if layer else 0))

    places: list[Any] = [getattr(model, "patch_embed", None), *blocks_of(model)]
    with ExitStack() as hooks, mode(model, training=False):
        for layer, place in enumerate(places):
            hooks.callback(place.register_forward_hook(hook(layer)).remove)
        for some in images.split(batch):
            model(some)


def _patch_tokens(output: Any, prefix: int) -> torch.Tensor:
    # A stem gives (batch, rows, columns, width) where the image size may change.
    if isinstance(output, torch.Tensor) and output.ndim == 4:
        output = output.flatten(1, 2)
    if not isinstance(output, torch.Tensor) or output.ndim != 3 or output.shape[1] <= prefix:
        raise Unmeasurable("its layers do not give tokens (batch, tokens, width)")
    return output[:, prefix:].float()
