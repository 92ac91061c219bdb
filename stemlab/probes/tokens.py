"""Token diversity: how alike the patch tokens of an image are."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .layers import layer_names, watch_tokens
from .numbers import all_finite


def similarity(tokens: torch.Tensor) -> torch.Tensor:
    """Return the mean cosine similarity of all pairs of different tokens: (batch, tokens, width) -> (batch,).

    In closed form: n unit vectors whose mean has the norm r have the mean similarity (n r^2 - 1) / (n - 1). Not a
    number for a single token. A token of zeros is at right angles to every other.
    """
    units = F.normalize(tokens.double(), dim=-1)
    count = tokens.shape[1]
    lengths = units.square().sum((-2, -1)) / count  # 1, less where there are tokens of zeros
    return (count * units.mean(-2).square().sum(-1) - lengths) / (count - 1)


def measure(model: nn.Module, images: torch.Tensor) -> dict[str, Any]:
    """Return the similarity of the patch tokens behind the stem and behind each block, averaged over images.

    As arXiv 2109.03810 compares stems, with the pairs of arXiv 2104.12753, which however takes absolute values. Low is
    diverse; 1 is one token over and over (over-smoothing).
    """
    names = layer_names(model)
    totals = [0.0] * len(names)

    def see(layer: int, tokens: torch.Tensor) -> None:
        totals[layer] += float(similarity(tokens).sum())

    watch_tokens(model, images, see)
    similarities = all_finite(torch.tensor(totals, dtype=torch.double) / len(images))
    return {"tokens": {"layers": names, "similarity": similarities}, "token_similarity": similarities[-1]}
