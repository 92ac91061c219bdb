"""What is drawn at random while images are varied follows from a seed alone, and disturbs no other draws."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: tuple[int, ...], device: torch.device | None = None) -> Iterator[None]:
    """Draw from `seed` inside, whichever library draws (random, numpy, torch), and leave its generator as it was."""
    first, second, third = np.random.SeedSequence(seed).generate_state(3, np.uint32).tolist()
    before = random.getstate(), np.random.get_state()
    gpus = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        random.seed(first)
        np.random.seed(second)
        # Not torch.manual_seed, which looks for devices of all kinds: that takes longer than to vary a small image.
        torch.default_generator.manual_seed(third)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(third)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
