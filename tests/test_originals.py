"""Our stems are the published ones: with the weights of timm's and torchvision's, they give the same maps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from einops import rearrange
from originals import ZOO, Original, copy_weights
from other_originals import STEMS
from torch import nn

from stemlab import StemSpec, build_stem, zoo

pytestmark = pytest.mark.zoo

TOLERANCE = 1e-10
"""In double precision, where rounding stays below it and a wrong epsilon does not."""


def as_map(output: Any, like: torch.Tensor) -> torch.Tensor:
    """Return tokens or a map, in whatever layout the original gives them, as (batch, channels, height, width)."""
    tokens = output[0] if isinstance(output, tuple) else output
    if tokens.ndim == 3:
        return rearrange(tokens, "b (h w) d -> b d h w", h=like.shape[2])
    return tokens if tokens.shape == like.shape else rearrange(tokens, "b h w d -> b d h w")


def our_stem(spec: StemSpec, dim: int, image_size: int) -> nn.Module:
    """Return the stem alone, in double precision."""
    return build_stem(spec, dim, image_size).layers.double()


def images(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, dtype=torch.double)


@torch.no_grad()
def distance(theirs: nn.Module, ours: nn.Module, x: torch.Tensor, training: bool = False) -> float:
    """Return the largest difference of the two maps, and in training of the running statistics after it."""
    pairs = copy_weights(theirs, ours, x)
    mine = ours.train(training)(x)
    other = as_map(theirs.train(training)(x), mine)
    assert mine.shape == other.shape
    buffers = [(a, b) for m, n in pairs for a, b in zip(m.buffers(), n.buffers(), strict=True)]
    return max(float((a - b).abs().max()) for a, b in [(mine, other), *buffers])


def assert_equal(original: Original, spec: StemSpec, dim: int, image_size: int) -> None:
    torch.manual_seed(0)
    theirs, ours, x = original.build(), our_stem(spec, dim, image_size), images(image_size)
    assert distance(theirs, ours, x) < TOLERANCE
    assert distance(theirs, ours, x, training=True) < TOLERANCE


@pytest.mark.parametrize("name", ZOO)
def test_a_stem_of_the_zoo_is_the_original(name):
    original, entry = ZOO[name], zoo.get(name)
    assert_equal(original, entry.stem, entry.dim, original.image_size or entry.image_size)


def test_every_stem_that_timm_or_torchvision_ships_is_compared():
    checked = {name: zoo.get(name).checked for name in zoo.names()}
    shipped = {name: what for name, what in checked.items() if what.split()[0] in ("timm", "torchvision")}
    assert shipped == {name: original.name for name, original in ZOO.items()}


@pytest.mark.parametrize("name", STEMS)
def test_a_stem_outside_the_zoo_can_be_written_down(name):
    original, written = STEMS[name]
    spec, size = StemSpec.model_validate(written), original.image_size or 224
    dim = zoo.get(written).dim if isinstance(written, str) else spec.trace(size, size, 1).end.channels
    assert_equal(original, spec, dim, size)
