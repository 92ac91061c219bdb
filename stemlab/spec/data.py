"""DataSpec: on which images a model is trained, chosen and reported."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, Strict, model_validator

from ..errors import nearest, short
from .base import Number, Pair, PositiveInt, Seed, Spec, relation_error, spec_error

Share = Annotated[Number, Field(gt=0, lt=1)]

MADE = {"digits": (10, 1797), "fractals": (100, 100)}
"""The sets that need no files: their classes and images; of fractals so many classes with so many images each, unless
the spec says otherwise."""

FOLDER = "folder:"
"""What the name of a set begins with that is a folder of images, one folder a class."""

OF_TIMM = ("torch/", "hfds/", "wds/", "tfds/")
"""What the names of the sets begin with that timm reads."""

Images = Annotated[int, Strict(), Field(gt=0, le=2**40)]


def is_on_disk(name: str) -> bool:
    """Return whether a name is that of a set whose images are files of the user's, or of a library's."""
    return name.startswith((FOLDER, *OF_TIMM))


class Contents(Spec):
    """What a set on disk was found to hold: the images that can be read, of each of its parts.

    `validation` and `test` are absent where the set has no such parts of its own and they are taken from the training
    part. `listing` is a digest of the names, sizes and classes of all images.
    """

    classes: PositiveInt
    train: Images
    validation: Images | None = None
    test: Images | None = None
    listing: str


class DataSpec(Spec):
    """A data set and how it is split: `validation` chooses, `test` only reports. Splits are stratified by class.

    `name`: `digits` (1,797 real scans); `fractals` (images made of formulas, `classes` of them with `images_per_class`
    each, 100 of 100 unless given); `folder:PATH` (a folder for each class, or such folders in `train`, `validation` or
    `val`, and `test`); or what timm's `create_dataset` reads: `torch/...`, `hfds/...`, `wds/...`, `tfds/...`.

    A set that comes with held-out images keeps them: with one such part it is the test part, and `validation` is the
    share of the training part that chooses. `contents` is what a set on disk holds; it is found when a study is read.
    """

    name: str
    image_size: Pair = 32
    validation: Share = 0.2
    test: Share = 0.2
    split_seed: Seed = 0
    classes: PositiveInt | None = None
    images_per_class: PositiveInt | None = None
    contents: Contents | None = None

    @model_validator(mode="after")
    def _agrees(self) -> DataSpec:
        if not self.on_disk and self.name not in MADE:
            raise spec_error(
                f"unknown data set {short(self.name)}; expected {', '.join(MADE)}, {FOLDER}PATH, "
                f"or one of timm's ({', '.join(f'{start}...' for start in OF_TIMM)}){nearest(self.name, MADE)}",
                at=("name",),
            )
        for name in ("classes", "images_per_class"):
            if getattr(self, name) is not None and self.name != "fractals":
                raise relation_error(f"only fractals have a number to choose, not {short(self.name)}", at=(name,))
        if self.contents is not None and not self.on_disk:
            raise relation_error(f"only sets on disk have contents, not {self.name}", at=("contents",))
        if self.validation + self.test > 0.9:
            raise relation_error(
                f"validation + test (={self.validation + self.test:g}) leave under a tenth to train on"
            )
        if self.is_known:
            self._check_parts()
        return self

    def _check_parts(self) -> None:
        if self.part_sizes[0] < self.class_count:
            raise relation_error(f"leaves {self.part_sizes[0]} images to train {self.class_count} classes on")
        for name, images in zip(("validation", "test"), self.part_sizes[1:], strict=True):
            # An own part that lacks a class is what it is; what is split off shall have all of them.
            if images < self.class_count and getattr(self._found, name) is None:
                share = getattr(self, name)
                raise relation_error(
                    f"{name} (={share:g}) leaves {images} images for {self.class_count} classes in that part",
                    at=(name,),
                )

    @property
    def on_disk(self) -> bool:
        """Whether the images are files of the user's, or of a library's."""
        return is_on_disk(self.name)

    @property
    def is_known(self) -> bool:
        """Whether it is known how many images and classes there are."""
        return not self.on_disk or self.contents is not None

    @property
    def part_sizes(self) -> tuple[int, int, int]:
        """How many images the training, validation and test parts have. The held-out parts are rounded up.

        LookupError where that is not known (`is_known`).
        """
        found = self._found
        if found.test is None:
            test = math.ceil(found.train * self.test)
            validation = math.ceil((found.train - test) * (self.validation / (1 - self.test)))
            return found.train - test - validation, validation, test
        if found.validation is None:
            validation = math.ceil(found.train * self.validation)
            return found.train - validation, validation, found.test
        return found.train, found.validation, found.test

    @property
    def class_count(self) -> int:
        """The number of classes. LookupError where that is not known (`is_known`)."""
        return self._found.classes

    @property
    def _found(self) -> Contents:
        if self.contents is not None:
            return self.contents
        if self.on_disk:
            raise LookupError(f"{self.name}: what it holds has not been looked up")
        classes, images = MADE[self.name]
        if self.name == "fractals":
            classes = self.classes or classes
            images = classes * (self.images_per_class or images)
        return Contents(classes=classes, train=images, listing="")
