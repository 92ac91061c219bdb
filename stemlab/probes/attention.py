"""Attention distance: how far, in pixels, the heads of each block look."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .layers import BATCH, Unmeasurable, blocks_of, mode
from .numbers import all_finite, finite


def patch_distances(grid: tuple[int, int], stride: tuple[int, int]) -> torch.Tensor:
    """Return the distances in pixels between the centres of the patches of a grid: (patches, patches)."""
    rows, columns = (torch.arange(count) * step for count, step in zip(grid, stride, strict=True))
    places = torch.cartesian_prod(rows, columns).double()
    return torch.cdist(places, places)


class _Distances(TorchFunctionMode):
    """Sees the queries and keys that a block hands to torch's attention: behind rotary embeddings and their norms.

    Fused kernels do not return the weights, so these are worked out again, among the patches alone.
    """

    def __init__(self, distances: torch.Tensor, prefix: int) -> None:
        super().__init__()
        self.distances, self.prefix = distances, prefix
        self.block: int | None = None
        self.totals: dict[int, torch.Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention and self.block is not None:
            self._see(self.block, args[0][:, :, self.prefix :], args[1][:, :, self.prefix :])
        return func(*args, **(kwargs or {}))

    def _see(self, block: int, queries: torch.Tensor, keys: torch.Tensor) -> None:
        patches = len(self.distances)
        if queries.shape[-2] != patches or keys.shape[-2] != patches:
            raise Unmeasurable(f"block {block + 1} attends to {keys.shape[-2]} patches, the grid has {patches}")
        weights = (queries.float() @ keys.float().mT * queries.shape[-1] ** -0.5).softmax(-1)
        by_head = (weights * self.distances).sum(-1).mean(-1).double().sum(0)
        self.totals[block] = self.totals.get(block, 0) + by_head

    def enter(self, block: int | None) -> Any:
        """Return a hook that notes which block's attention runs."""

        def hook(*_: Any) -> None:
            self.block = block

        return hook


@torch.inference_mode()
def measure(model: nn.Module, images: torch.Tensor) -> dict[str, Any]:
    """Return the mean attention distance of each head of each block, in pixels of the image that the model sees.

    The distance from each patch to all, weighted by its attention, averaged over patches and images (arXiv 2010.11929,
    2108.08810). Class and register tokens are left out, as queries and as keys; the rest of the weights are scaled to
    add up to one. Looking everywhere alike is about half the side of a square image (0.52 of it).
    """
    blocks, stem = blocks_of(model), cast(Any, model).patch_embed
    if not hasattr(stem, "dynamic_feat_size"):
        raise Unmeasurable(f"its patch embedding, a {type(stem).__name__}, does not say what grid its tokens make")
    grid, stride = stem.dynamic_feat_size(tuple(images.shape[-2:])), stem.feat_ratio(as_scalar=False)
    distances = patch_distances(grid, stride).to(images)
    watch = _Distances(distances, int(getattr(model, "num_prefix_tokens", 0)))
    with ExitStack() as stack, mode(model, training=False), watch:
        for number, block in enumerate(blocks):
            attention: Any = getattr(block, "attn", None)
            if not hasattr(attention, "fused_attn"):
                raise Unmeasurable(f"block {number + 1} has no attention of timm's")
            stack.callback(setattr, attention, "fused_attn", attention.fused_attn)
            attention.fused_attn = True  # the other way computes the same, without the function that is watched
            stack.callback(attention.register_forward_pre_hook(watch.enter(number)).remove)
            stack.callback(attention.register_forward_hook(watch.enter(None)).remove)
        for some in images.split(BATCH):
            model(some)
    if len(watch.totals) < len(blocks):
        raise Unmeasurable("some of its blocks do not attend by torch's scaled_dot_product_attention")
    means = torch.stack([watch.totals[number] for number in range(len(blocks))]) / len(images)
    return {"attention": {"distance": all_finite(means)}, "attention_distance": finite(means.mean())}
