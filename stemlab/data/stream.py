"""Images that are read from files as they are asked for, prepared and varied by timm's transforms."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data import create_transform
from timm.data.loader import PrefetchLoader, fast_collate
from timm.data.random_erasing import RandomErasing
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose

from ..spec.augment import AugmentSpec
from .augment import mended
from .drawn import seeded
from .split import Batch

LOADERS = "STEMLAB_LOADERS"
"""The environment variable that says how many processes read images ahead, for each part of a set."""

CROP = 0.875
"""The share of its height and width that is left of an image when it is judged: timm's default."""

Item = tuple[int, tuple[int, int] | None]
"""The place of an image, and the seed that it is varied by: that of its batch, and its position in it."""


class Source(Protocol):
    """Where images come from, by their places."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of each."""

    def image(self, place: int) -> Image.Image:
        """Return an image in three bytes a pixel."""


class StreamPart:
    """A part of a set whose images are read as they are asked for; `places` are those of its images in the source.

    An image is resized and cropped for judging as timm does it; for training, with an AugmentSpec, it is varied by
    timm's transforms for training. What is drawn follows from the seed of its batch and its position there alone,
    however many processes read ahead.
    """

    def __init__(
        self,
        source: Source,
        places: NDArray[np.int64],
        size: tuple[int, int],
        device: str = "cpu",
        augment: AugmentSpec | None = None,
    ) -> None:
        self.device = torch.device(device)
        self._views = Views(source, places, size, augment)
        self._batches = _Batches()
        self._loader: PrefetchLoader | None = None
        self._erase: Any = None
        if augment is not None and augment.erasing:
            self._erase = RandomErasing(augment.erasing, mode="pixel", device=self.device)  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self._views)

    def batches(self, chosen: Iterable[torch.Tensor], seeds: Sequence[int] | None = None) -> Iterator[Batch]:
        """Yield the images of each of the `chosen` batches of places, varied by `seeds` where there are any."""
        places = [batch.tolist() for batch in chosen]
        if seeds is None:
            self._batches.items = [[(place, None) for place in batch] for batch in places]
        else:
            self._batches.items = [
                [(place, (seed, position)) for position, place in enumerate(batch)]
                for batch, seed in zip(places, seeds, strict=True)
            ]
        if self._loader is None:
            self._loader = self._load()
        for number, (images, labels) in enumerate(self._loader):
            if self._erase is not None and seeds is not None:
                with seeded((seeds[number],), self.device):
                    images = self._erase(images)
            yield images, labels

    def _load(self) -> PrefetchLoader:
        workers = loaders(self.device)
        loader: DataLoader[Any] = DataLoader(
            self._views,
            batch_sampler=self._batches,
            num_workers=workers,
            collate_fn=fast_collate,
            pin_memory=self.device.type == "cuda",
            persistent_workers=workers > 0,
            # Its own, since a loader draws a number from torch's each time it is begun.
            generator=torch.Generator(),
        )
        return PrefetchLoader(loader, device=self.device)


def loaders(device: torch.device) -> int:
    """Return how many processes read ahead: none on the CPU, which the model keeps busy; else one for each thread."""
    told = os.environ.get(LOADERS, "")
    if told.isdecimal():
        return int(told)
    return torch.get_num_threads() if device.type == "cuda" else 0


class _Batches:
    """The batches of the next pass: a loader that lives on asks for them each time that it is begun."""

    def __init__(self) -> None:
        self.items: list[list[Item]] = []

    def __iter__(self) -> Iterator[list[Item]]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class Views(Dataset[tuple[torch.Tensor, int]]):
    """Images as bytes (3, H, W), prepared for judging, or varied by a seed."""

    def __init__(
        self, source: Source, places: NDArray[np.int64], size: tuple[int, int], augment: AugmentSpec | None
    ) -> None:
        self.source, self.places, self.labels = source, places, source.labels[places]
        self.judged = evaluation(size)
        self.varied = training(size, augment) if augment is not None else self.judged

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, item: Item) -> tuple[torch.Tensor, int]:
        place, seed = item
        image = self.source.image(int(self.places[place]))
        if seed is None:
            return self.judged(image), int(self.labels[place])
        with seeded(seed):
            return self.varied(image), int(self.labels[place])


def evaluation(size: tuple[int, int]) -> Callable[[Image.Image], torch.Tensor]:
    """Return timm's transform for judging: the shorter side to size / 0.875, bicubic; the middle; bytes."""
    made: Callable[[Image.Image], torch.Tensor] = create_transform(
        size, is_training=False, interpolation="bicubic", crop_pct=CROP, normalize=False
    )
    return made


def training(size: tuple[int, int], augment: AugmentSpec) -> Callable[[Image.Image], torch.Tensor]:
    """Return timm's transform for training, as bytes. Without `crop` an image is cropped as it is for judging."""
    crop, vary, end = create_transform(
        size,
        is_training=True,
        scale=augment.crop,
        hflip=augment.flip or 0.0,
        color_jitter=augment.color_jitter or 0.0,
        auto_augment=augment.auto,
        interpolation="random",
        normalize=False,
        separate=True,
    )
    vary = Compose([mended(step) for step in vary.transforms])
    if augment.crop is None:
        to_size = evaluation(size).transforms[:-1]  # type: ignore[attr-defined]
        crop = Compose([*to_size, *crop.transforms[1:]])
    made: Callable[[Image.Image], torch.Tensor] = Compose([crop, vary, end])
    return made
