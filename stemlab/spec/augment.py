"""AugmentSpec: how training images are varied."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, model_validator

from ..errors import short
from .base import Number, PositiveInt, Spec, relation_error, spec_error

Probability = Annotated[Number, Field(ge=0, le=1)]
Positive = Annotated[Number, Field(gt=0)]
Area = Annotated[Number, Field(gt=0, le=1)]

_NUMBER = r"\d{1,3}(\.\d{1,3})?"
_POLICY = re.compile(
    rf"(originalr?|v0r?|3a)(-mstd{_NUMBER})?"
    rf"|rand(-(mstd|p){_NUMBER}|-(mmax|m)\d{{1,3}}|-inc[01]|-n[1-9]|-t(weights|3aw?))*"
    rf"|augmix(-(mstd|a){_NUMBER}|-m\d{{1,3}}|-[wd][1-9]|-b[01])*"
)


class AugmentSpec(Spec):
    """How training images are varied, in the words of timm's train script. What is absent is not done.

    `crop`: least and largest share of an image's area of a random crop, which is resized. `flip`: probability of a
    mirror image. `color_jitter`: strength, of brightness, contrast and saturation. `auto`: a policy of timm's by name,
    such as `rand-m9-mstd0.5-inc1` (RandAugment), `original` or `v0` (AutoAugment), `3a` or `augmix-m3`. `erasing`:
    probability of a rectangle of noise. `mixup`, `cutmix`: the alphas of their Beta distributions; with both, one of
    them is drawn for each batch, CutMix with the probability `cutmix_share` (absent: half). `repeats`: how often an
    image of an epoch is repeated, each time varied anew, among as many fewer different ones (repeated augmentation,
    arXiv 1902.05509).
    """

    crop: tuple[Area, Area] | None = None
    flip: Probability | None = None
    color_jitter: Positive | None = None
    auto: str | None = None
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
        if self.auto is not None and not _POLICY.fullmatch(self.auto):
            raise spec_error(
                f"unknown policy {short(self.auto)}; expected one of timm's, such as rand-m9-mstd0.5-inc1, original, "
                "v0, 3a or augmix-m3",
                at=("auto",),
            )
        if self.color_jitter is not None and self.auto is not None and "3a" not in self.auto:
            raise relation_error(
                f"is left out by timm's policy {self.auto}, which varies colours itself", at=("color_jitter",)
            )
        if self.cutmix_share is not None and (self.mixup is None or self.cutmix is None):
            raise relation_error("is for mixup and cutmix together; one of them is missing", at=("cutmix_share",))
        return self

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed with one another."""
        return self.mixup is not None or self.cutmix is not None
