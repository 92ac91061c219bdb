"""AugmentSpec: how training images are varied."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from .base import Number, PositiveInt, Spec, relation_error, spec_error

Probability = Annotated[Number, Field(ge=0, le=1)]
Positive = Annotated[Number, Field(gt=0)]
Area = Annotated[Number, Field(gt=0, le=1)]


class AugmentSpec(Spec):
    """How training images are varied, in the words of timm's train script. What is absent is not done.

    `crop`: least and largest share of an image's area of a random crop, which is resized. `flip`: probability of a
    mirror image. `color_jitter`: strength. `auto`: a policy of timm's by name, such as `rand-m9-mstd0.5-inc1`
    (RandAugment) or `original` (AutoAugment). `erasing`: probability of a rectangle of noise. `mixup`, `cutmix`: the
    alphas of their Beta distributions; with both, one of them is drawn for each batch, CutMix with the probability
    `cutmix_share` (absent: half). `repeats`: how often an image of an epoch is repeated, each time varied anew, among
    as many fewer different ones (repeated augmentation, arXiv 1902.05509).
    """

    crop: tuple[Area, Area] | None = None
    flip: Probability | None = None
    color_jitter: Positive | None = None
    auto: Annotated[str, Field(pattern=r"^[a-z0-9.-]{1,60}$")] | None = None
    erasing: Probability | None = None
    mixup: Positive | None = None
    cutmix: Positive | None = None
    cutmix_share: Probability | None = None
    repeats: PositiveInt | None = None

    @model_validator(mode="after")
    def _agrees(self) -> AugmentSpec:
        if self.crop is not None and self.crop[0] > self.crop[1]:
            raise spec_error(
                f"expected the least and the largest share of the area, got {list(self.crop)}", at=("crop",)
            )
        if self.cutmix_share is not None and (self.mixup is None or self.cutmix is None):
            raise relation_error("is for mixup and cutmix together; one of them is missing", at=("cutmix_share",))
        return self

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed with one another."""
        return self.mixup is not None or self.cutmix is not None
