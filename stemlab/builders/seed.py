"""Initial weights that a seed fixes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import SpecError, short


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draw from `seed` inside, and leave torch's global generator as it was; None changes nothing."""
    if seed is None:
        yield
        return
    if not 0 <= seed < 2**32:
        raise SpecError(f"seed (={short(seed)}) must be at least 0 and less than 2**32")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
