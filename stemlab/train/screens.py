"""Screens: scores of an untrained model that are to say how well it will train. Larger is better, for all of them.

Each takes the model as its seed makes it and a forward or a backward pass or two of one batch, so it costs about as
much as a step of training.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from timm.layers import GELUTanh, QuickGELU, RmsNorm, RmsNorm2d
from torch import nn
from torch.nn import functional as F

from ..builders import build_model
from ..data.load import load
from ..errors import SpecError, nearest, one_of, short
from ..matching import match
from ..modules.scaled_relu import ScaledReLU
from ..spec import TrialSpec
from ..spec.search import Screen

IMAGES = 64
"""How many training images a score sees; the same in all trials on the same split."""

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, RmsNorm, RmsNorm2d)
_ACTIVATIONS = (
    nn.ReLU, nn.GELU, nn.SiLU, nn.Hardswish, nn.LeakyReLU, nn.PReLU, nn.ReLU6, nn.ELU, nn.Mish, nn.Tanh, nn.Sigmoid,
    nn.Hardsigmoid, nn.SELU, nn.CELU, nn.Softplus, ScaledReLU, GELUTanh, QuickGELU,
)  # fmt: skip
_KEPT = 1e-5  # of arXiv 2101.08134: keeps the logarithm of an eigenvalue of zero finite


def score(trial: TrialSpec, by: Screen) -> float | None:
    """Return a trial's score; None where it is no finite number.

    `by` is a name in SCREENS. Everything follows from the trial: on the CPU, by one thread, the same trial always has
    the same score. Nothing of the recipe but the seed enters.
    """
    if by not in SCREENS:
        raise SpecError(f"unknown screen {short(by)}; expected {one_of(SCREENS)}{nearest(by, SCREENS)}")
    part = load(trial.data).train
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(trial.data.split_seed))[:IMAGES]
    with _one_thread():
        model = build_model(match(trial.model).model, seed=trial.seed).train()
        found = SCREENS[by](model, *next(part.batches([order])))
    return found if math.isfinite(found) else None


def synflow(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Logarithm of the sum of |weight x gradient| that an image of ones finds (arXiv 2006.05467, 2101.08134).

    All parameters are replaced by their absolute values and all norms left out, so that what flows is positive. Queries
    are zero, so that all tokens attend to all alike: without norms a softmax is saturated, and its gradient overflows.
    No data is looked at; of norms and activations it sees hardly more than the initial weights that they ask for.
    """
    _without_norms(model)
    _without_queries(model)
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    model(torch.ones_like(images[:1], dtype=torch.double)).sum().backward()
    return _log(_saliency(model))


def naswot(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Logarithm of the determinant of how alike the images' patterns of active units are (arXiv 2006.04647).

    A unit is active where its activation is above zero: with ReLU where the paper has it, with GELU at the same place.
    Models whose images have patterns that differ score higher. It is no number where no activation tells images apart,
    as with a patchify stem on a body of timm's SwiGLU, whose gates all begin open.
    """
    kernel = torch.zeros(len(images), len(images), dtype=torch.double)

    def count(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        active = (output.detach() > 0).flatten(1).float()  # counts below 2^24 are exact
        kernel.add_(active @ active.T + (1 - active) @ (1 - active).T)

    for module in model.modules():
        if isinstance(module, _ACTIVATIONS):
            module.register_forward_hook(count)
    with torch.no_grad():
        model(images)
    return float(torch.linalg.slogdet(kernel).logabsdet)


def jacob_cov(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """How little the images' input gradients are correlated (first version of arXiv 2006.04647, as in 2101.08134)."""
    images = images.clone().requires_grad_()
    model(images).sum().backward()
    assert images.grad is not None
    values = torch.linalg.eigvalsh(torch.corrcoef(images.grad.flatten(1).double())) + _KEPT
    return -float((values.log() + 1 / values).sum())


def snip(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Sum of |weight x gradient| of the loss (arXiv 1810.02340, summed up as in 2101.08134)."""
    F.cross_entropy(model(images), labels).backward()
    return float(_saliency(model))


def grad_norm(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Sum over the layers of the norm of the loss's gradient (arXiv 2101.08134)."""
    F.cross_entropy(model(images), labels).backward()
    return float(sum(gradient.norm() for _, gradient in _weights(model)))


SCREENS: dict[str, Callable[[nn.Module, torch.Tensor, torch.Tensor], float]] = {
    "synflow": synflow,
    "naswot": naswot,
    "jacob_cov": jacob_cov,
    "snip": snip,
    "grad_norm": grad_norm,
}
"""The scores by name: each takes a model (which it may spoil), images (n, 3, H, W) and labels (n,)."""


def _weights(model: nn.Module) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the weights and gradients of the convolutions and linear layers, those without a part in the result out."""
    for name, parameter in model.named_parameters():
        if name.endswith("weight") and parameter.ndim > 1 and parameter.grad is not None:
            yield parameter.detach(), parameter.grad


def _saliency(model: nn.Module) -> torch.Tensor:
    return torch.stack([(weight * gradient).abs().sum() for weight, gradient in _weights(model)]).sum()


def _log(value: torch.Tensor) -> float:
    return math.log(value) if value > 0 else -math.inf


def _without_norms(model: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _NORMS):
                setattr(parent, name, nn.Identity())


@torch.no_grad()
def _without_queries(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        owner, kind = name.split(".")[-2:] if "." in name else ("", name)
        if kind == "q_bias" or owner in ("q", "q_proj"):
            parameter.zero_()
        elif owner == "qkv":
            parameter[: len(parameter) // 3].zero_()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums depend on how they are split over threads, and their order is to be the same on every run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
