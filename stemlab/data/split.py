"""The three parts of a data set, as tensors on the device that trains."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Part:
    """Images (n, 3, H, W), normalised, and labels (n,)."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Splits:
    """`train` trains, `validation` chooses between models, `test` is only ever reported."""

    train: Part
    validation: Part
    test: Part
