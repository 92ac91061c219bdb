"""Sharpness: the top eigenvalue of the Hessian of the training loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..builders.seed import seeded
from .layers import mode
from .numbers import finite

ITERATIONS = 40
"""Power iterations at most: each costs two passes backward."""

TOLERANCE = 0.01
"""The iteration ends when the estimate changes by less than this share of it."""


def top_eigenvalue(
    loss: torch.Tensor,
    parameters: Sequence[torch.Tensor],
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> tuple[float, int, bool]:
    """Return the eigenvalue of largest magnitude of a loss's Hessian, the iterations taken, and whether it settled.

    Power iteration on Hessian-vector products, twice backward, from a start that `seed` fixes (as in arXiv
    1912.07145). Not a number where the loss or a product is not finite; zero where the loss is linear.
    """
    first = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    curved = [(g, p) for g, p in zip(first, parameters, strict=True) if g is not None and g.requires_grad]
    if not curved:
        return 0.0, 0, True
    gradients, along = [g for g, _ in curved], [p for _, p in curved]
    generator = torch.Generator().manual_seed(seed)
    vector = _unit([torch.randn(p.shape, generator=generator).to(p) for p in along])[0]
    estimate = 0.0
    for iteration in range(1, iterations + 1):
        product = torch.autograd.grad(gradients, along, vector, retain_graph=True, materialize_grads=True)
        before = estimate
        estimate = float(sum((h * v).sum() for h, v in zip(product, vector, strict=True)))
        vector, length = _unit(product)
        if not length > 0:  # nothing to follow, or not a number
            return length, iteration, length == 0
        if abs(estimate - before) < tolerance * abs(estimate):
            return estimate, iteration, True
    return estimate, iterations, False


def _unit(vector: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], float]:
    length = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part) for part in vector]))
    return [part / length for part in vector], float(length)


def measure(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> dict[str, Any]:
    """Return the top eigenvalue of the Hessian of the training loss of one batch, over all weights that learn.

    In training mode, as the loss that the optimizer sees: batch norms use the batch's statistics, but do not keep them.
    Training at learning rate lr tends to hover at 2 / lr for plain gradient descent (arXiv 2103.00065).
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    # Fused attention cannot be derived twice.
    with mode(model, training=True), seeded(0), sdpa_kernel(SDPBackend.MATH):
        logits = functional_call(model, buffers, (images,))
        loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        value, iterations, converged = top_eigenvalue(loss, parameters)
    top = finite(value)
    found = {"eigenvalue": top, "iterations": iterations, "converged": converged, "images": len(images)}
    return {"hessian": found, "hessian_top": top}
