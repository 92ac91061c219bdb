"""How long a model takes for a batch of images, and its stem alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median

import torch

from ..builders import build_model
from ..spec import LatencySpec, ModelSpec, TrainSpec
from ..spec.base import pair
from .measure import timed
from .run import autocast

SECONDS = 0.5
"""How long each of the two is timed, warm-up apart."""

_WARM_UP, _LEAST, _MOST = 3, 5, 1000


def measure(model: ModelSpec, train: TrainSpec, batch: int, device: str) -> dict[str, float]:
    """Return `latency` and `stem_latency` in milliseconds: medians over repeated inferences in the recipe's precision.

    The model is one of its own, built for this (and matched already), and the images are noise that comes from no
    generator of a trial: nothing of the training changes.
    """
    built = build_model(model, seed=0).to(device).eval()
    noise = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, *pair(model.image_size), generator=noise).to(device)
    with torch.inference_mode(), autocast(train, images):
        return {
            "latency": 1000 * _median_seconds(lambda: built(images), device),
            "stem_latency": 1000 * _median_seconds(lambda: built.patch_embed(images), device),
        }


def objection(spec: LatencySpec, measured: dict[str, float]) -> str | None:
    """Return which bounds measured times are outside of, None where they keep to them."""
    found = []
    for name, bound in (("latency", spec.model), ("stem_latency", spec.stem)):
        if bound is None:
            continue
        value = measured[name]
        if bound.max is not None and value > bound.max:
            found.append(f"{name} {value:.3g} ms is above max {bound.max:g} ms")
        if bound.min is not None and value < bound.min:
            found.append(f"{name} {value:.3g} ms is below min {bound.min:g} ms")
    return "; ".join(found) or None


def _median_seconds(work: Callable[[], object], device: str) -> float:
    """Return the median time of a call, whose work on a GPU is waited for."""
    once = partial(timed, work, device)
    warming, times = [once()], list[float]()
    while len(warming) < _WARM_UP and sum(warming) < SECONDS:
        warming.append(once())
    while len(times) < _LEAST or (sum(times) < SECONDS and len(times) < _MOST):
        times.append(once())
        if sum(times) > 2 * SECONDS:  # a slow model needs no more repeats than these
            break
    return median(times)
