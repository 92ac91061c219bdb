"""CKA: how alike two layers represent the same images, whatever their widths and their numbers of tokens."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch
from torch import nn

from .layers import layer_names, watch_tokens
from .numbers import all_finite


def centred_gram(features: torch.Tensor) -> torch.Tensor:
    """Return the U-centred Gram matrix of features: (images, anything) -> (images, images), with a diagonal of zeros.

    The inner product of two such matrices is, but for a factor, the unbiased estimate of HSIC (Song et al. 2012), so
    their cosine is the linear CKA of arXiv 1905.00414, estimated as in arXiv 2010.15327: without the bias that makes
    layers of many more features than images look alike. One batch has all the images, so none need be averaged.
    """
    flat = features.flatten(1).double()
    flat = flat - flat.mean(0)
    gram = (flat @ flat.T).fill_diagonal_(0)
    count = len(gram)
    rows = gram.sum(0) / (count - 2)
    return (gram - rows - rows[:, None] + gram.sum() / ((count - 1) * (count - 2))).fill_diagonal_(0)


def cka_matrix(grams: torch.Tensor) -> torch.Tensor:
    """Return the CKA of each pair of layers: (layers, images, images) -> (layers, layers).

    Not a number for a layer that tells no two images apart.
    """
    flat = grams.flatten(1)
    units: torch.Tensor = flat / flat.norm(dim=1, keepdim=True)
    return units @ units.T


def encode(gram: torch.Tensor) -> str:
    """Return what is above a Gram matrix's diagonal, row by row, in units of its root mean square: float16 as base64.

    CKA knows no scale; `stemlab.analysis.similarity` reads it.
    """
    values = gram.cpu().numpy()[np.triu_indices(len(gram), k=1)]
    size = np.sqrt(np.mean(values**2))
    return base64.b64encode((values / (size or 1.0)).astype("<f2").tobytes()).decode()


def measure(model: nn.Module, images: torch.Tensor) -> dict[str, Any]:
    """Return the CKA of stem and blocks among each other, and what `cka_between` compares with those of other models.

    A layer's features are all its patch tokens.
    """
    names = layer_names(model)
    grams: dict[int, torch.Tensor] = {}

    def see(layer: int, tokens: torch.Tensor) -> None:
        grams[layer] = centred_gram(tokens)

    watch_tokens(model, images, see, batch=len(images))
    ordered = [grams[layer] for layer in range(len(names))]
    matrix = all_finite(cka_matrix(torch.stack(ordered)))
    kept = [encode(gram) if gram.isfinite().all() else None for gram in ordered]
    found = {"layers": names, "images": len(images), "matrix": matrix, "grams": kept}
    return {"cka": found, "stem_cka": matrix[0][-1]}
