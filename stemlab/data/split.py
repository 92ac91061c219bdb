"""The three parts of a data set, and how a model is given their images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ..spec import AugmentSpec

Batch = tuple[torch.Tensor, torch.Tensor]
"""Images (n, 3, H, W), normalised, and labels (n,), on the device that trains."""


class Part(Protocol):
    """Labelled images, which are asked for by their places, 0 to len - 1."""

    @property
    def device(self) -> torch.device:
        """Where its batches are."""

    def __len__(self) -> int: ...

    def batches(self, chosen: Iterable[torch.Tensor], seeds: Sequence[int] | None = None) -> Iterator[Batch]:
        """Yield the images of each of the `chosen` batches of places.

        With `seeds`, one for each batch, they are varied as the recipe says, and what is drawn follows from the seed
        alone; without, they are as they are judged.
        """


@dataclass(frozen=True)
class MemoryPart:
    """Images in the memory of the device that trains: float (n, 3, H, W), normalised, or bytes of
    grey (n, H, W) or of colour (n, 3, H, W).

    Bytes become normalised floats as they are asked for, by `mean` and `deviation` (in units of the whole range); what
    is float already has been normalised by them. The part has the images at `places`, all of them unless given, with
    the `labels` of those. `augment` says how the images are varied where seeds are given.
    """

    images: torch.Tensor
    labels: torch.Tensor
    mean: float | torch.Tensor = 0.0
    deviation: float | torch.Tensor = 1.0
    augment: AugmentSpec | None = None
    places: torch.Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.labels.device

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: torch.Tensor) -> Batch:
        """Return images (*chosen.shape, 3, H, W) and labels of places in any shape, which are on the same device."""
        images = self.images[chosen if self.places is None else self.places[chosen]]
        if images.dtype == torch.uint8:
            images = (images.float() / 255 - self.mean) / self.deviation
            if self.images.dim() == 3:
                images = images.unsqueeze(-3).expand(*chosen.shape, 3, *images.shape[-2:])
        return images, self.labels[chosen]

    def batches(self, chosen: Iterable[torch.Tensor], seeds: Sequence[int] | None = None) -> Iterator[Batch]:
        """Yield the images of each of the `chosen` batches of places, varied where there are `seeds`."""
        places = list(chosen)
        # In one piece: on a GPU each copy would be waited for.
        found = map(self.take, torch.cat(places).to(self.device).split([len(batch) for batch in places]))
        if self.augment is None or seeds is None:
            return found
        return self._varied(found, self.augment, seeds)

    def _varied(self, batches: Iterator[Batch], augment: AugmentSpec, seeds: Sequence[int]) -> Iterator[Batch]:
        # Here, since timm takes long to import, and most who read this file vary nothing.
        from .augment import varied

        for (images, labels), seed in zip(batches, seeds, strict=True):
            yield varied(images, augment, seed, self.mean, self.deviation), labels


@dataclass(frozen=True)
class Splits:
    """`train` trains, `validation` chooses between models, `test` is only ever reported."""

    train: Part
    validation: Part
    test: Part
    preprocessing: dict[str, Any]
    """How an image becomes what the model sees, in the words of timm's pretrained_cfg: mean, std, crop_pct."""


def grey(mean: float, deviation: float) -> dict[str, Any]:
    """Return the preprocessing of grey images that are seen whole, normalised by these."""
    return {"mean": (mean,) * 3, "std": (deviation,) * 3, "crop_pct": 1.0, "interpolation": "bilinear"}
