"""DataSpec and TrainSpec: on what, and how, a model is trained."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Number, Pair, PositiveInt, Seed, Spec, relation_error

Share = Annotated[Number, Field(gt=0, lt=1)]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]


class DataSpec(Spec):
    """A data set and how it is split: `validation` chooses, `test` only reports. Splits are stratified by class."""

    name: Literal["digits"]
    image_size: Pair = 32
    validation: Share = 0.2
    test: Share = 0.2
    split_seed: Seed = 0

    @model_validator(mode="after")
    def _leaves_something(self) -> DataSpec:
        if self.validation + self.test > 0.9:
            raise relation_error(
                f"validation + test (={self.validation + self.test:g}) leave under a tenth to train on"
            )
        for name, images in zip(("validation", "test"), self.part_sizes[1:], strict=True):
            if images < self.classes:
                share = getattr(self, name)
                raise relation_error(
                    f"{name} (={share:g}) leaves {images} images for {self.classes} classes in that part", at=(name,)
                )
        return self

    @property
    def part_sizes(self) -> tuple[int, int, int]:
        """How many images the training, validation and test parts have. The held-out parts are rounded up."""
        images = {"digits": 1797}[self.name]
        test = math.ceil(images * self.test)
        validation = math.ceil((images - test) * (self.validation / (1 - self.test)))
        return images - test - validation, validation, test

    @property
    def classes(self) -> int:
        """The number of classes."""
        return {"digits": 10}[self.name]


class TrainSpec(Spec):
    """The recipe of one run. Optimizers and schedules are timm's; epochs are passes over the training part."""

    epochs: PositiveInt = 8
    batch_size: PositiveInt = 64
    optimizer: Literal["adamw", "sgd", "adam", "lamb", "lion", "nadamw", "rmsprop"] = "adamw"
    lr: Positive = 1e-3
    weight_decay: NotNegative = 0.05
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: NotNegative = 1.0
    min_lr: NotNegative = 0.0
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    clip_grad: Positive | None = None
    precision: Literal["fp32", "bf16"] = "fp32"

    @model_validator(mode="after")
    def _agrees(self) -> TrainSpec:
        if self.warmup_epochs >= self.epochs:
            raise relation_error(
                f"warmup_epochs (={self.warmup_epochs:g}) must be less than epochs (={self.epochs})",
                at=("warmup_epochs",),
            )
        if self.min_lr > self.lr:
            raise relation_error(f"min_lr (={self.min_lr:g}) must not exceed lr (={self.lr:g})", at=("min_lr",))
        return self
