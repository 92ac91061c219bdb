"""Our stems are the published ones: with the weights of timm's and torchvision's, they give the same maps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import originals
import pytest
import torch
import yaml
from einops import rearrange
from layer_lists import convert
from originals import Original, copy_weights, weighted
from torch import nn

from stemlab import StemSpec, build_stem

pytestmark = pytest.mark.zoo

FACTS = {
    fact["id"].lower(): fact
    for fact in yaml.safe_load((Path(__file__).parent / "facts" / "stems.yaml").read_text(encoding="utf-8"))
}
TOLERANCE = 1e-10
"""In double precision, where a rounding error is below it and a wrong epsilon is not."""


def as_map(output: Any, like: torch.Tensor) -> torch.Tensor:
    """Return tokens or a map, in whatever layout the original gives them, as (batch, channels, height, width)."""
    tokens = output[0] if isinstance(output, tuple) else output
    if tokens.ndim == 3:
        return rearrange(tokens, "b (h w) d -> b d h w", h=like.shape[2])
    return tokens if tokens.shape == like.shape else rearrange(tokens, "b h w d -> b d h w")


def distance(original: Original, spec: StemSpec, image_size: int, in_channels: int = 3) -> float:
    """Return the largest difference between the two stems with the same weights, over eval and train mode."""
    torch.manual_seed(0)
    dim = spec.trace(image_size, image_size, 1, in_channels).end.channels
    ours, theirs = build_stem(spec, dim, image_size).layers.double(), original.build()
    x = torch.randn(2, in_channels, image_size, image_size, dtype=torch.double)
    copy_weights(theirs.eval(), ours.eval(), x)
    differences = []
    with torch.no_grad():
        for training in (False, True):
            mine = ours.train(training)(x)
            other = as_map(theirs.train(training)(x), mine)
            differences.append(mine - other)
        differences += statistics_differences(ours, theirs, x)
    return max(float(difference.abs().max()) for difference in differences)


def statistics_differences(ours: nn.Module, theirs: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Return how far the running statistics of the batch norms are apart."""
    pairs = zip(weighted(ours, x), weighted(theirs, x), strict=True)
    return [a - b for m, n in pairs for a, b in zip(m.buffers(), n.buffers(), strict=True)]


@pytest.mark.parametrize("name", originals.ZOO)
def test_a_stem_of_the_zoo_is_the_original(name):
    original, fact = originals.ZOO[name], FACTS[name]
    image_size = original.image_size or fact["measured_at"][1]
    assert distance(original, convert(fact["layers"]), image_size) < TOLERANCE
