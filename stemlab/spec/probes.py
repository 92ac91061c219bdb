"""ProbeSpec: what is measured of a model, beside how well it does."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from .base import Flag, PositiveInt, Spec, relation_error

LEAST = 4
"""The unbiased estimate of CKA needs at least so many images."""


def _or_flag(schema: dict[str, Any]) -> None:
    schema["anyOf"].append({"type": "boolean"})


class CkaSpec(Spec):
    """`images`: how many of the probe images are compared.

    The record keeps about 1.33 * images * (images - 1) bytes for the stem and for each block: 5 KB each for 64.
    """

    images: Annotated[PositiveInt, Field(ge=LEAST, le=256)] = 64


class ProbeSpec(Spec):
    """What to measure during a trial and behind it; everything is off unless it is asked for.

    `tokens`: how alike the patch tokens of an image are, behind the stem and behind each block. `gradients`: the norms
    of the gradients of stem and body. `updates`: how far a step moves the weights, relative to their norm. `spikes`:
    sudden rises of the training loss. `attention`: how far attention looks, in pixels. `cka`: how alike the
    representations of stem and blocks are, within the model and between models. `hessian`: the sharpness of the
    training loss. docs/probes.md has methods and sources.

    `images` is how many images of the validation part the probes of the trained model see, or all where it has fewer.
    """

    tokens: Flag = False
    gradients: Flag = False
    updates: Flag = False
    spikes: Flag = False
    attention: Flag = False
    cka: CkaSpec | None = Field(default=None, json_schema_extra=_or_flag)
    hessian: Flag = False
    images: Annotated[PositiveInt, Field(ge=LEAST)] = 256

    @model_validator(mode="before")
    @classmethod
    def _cka_may_be_a_flag(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("cka"), bool):
            return data
        if not data["cka"]:
            return {**data, "cka": None}
        images, most = data.get("images"), CkaSpec().images
        return {**data, "cka": {"images": min(most, images) if type(images) is int and images >= LEAST else most}}

    @model_validator(mode="after")
    def _agrees(self) -> ProbeSpec:
        if self.cka is not None and self.cka.images > self.images:
            raise relation_error(
                f"cka.images (={self.cka.images}) must not exceed images (={self.images}): they are the first of those",
                at=("cka", "images"),
            )
        return self

    def canonical(self) -> dict[str, Any]:
        """Return the canonical document; what is off is left out, so that new probes change no digest."""
        fields, written = type(self).model_fields, super().canonical()
        return {name: value for name, value in written.items() if value != fields[name].default}

    @property
    def numbers(self) -> tuple[str, ...]:
        """What of its findings is one number a trial: the columns that a study's table gets."""
        of = {
            "tokens": ("token_similarity",),
            "gradients": ("stem_grad_max", "body_grad_max"),
            "spikes": ("loss_spikes",),
            "attention": ("attention_distance",),
            "cka": ("stem_cka",),
            "hessian": ("hessian_top",),
        }
        return tuple(number for name, numbers in of.items() if getattr(self, name) for number in numbers)

    @property
    def active(self) -> bool:
        """Whether anything is measured."""
        return any(getattr(self, name) for name in type(self).model_fields if name != "images")


Probes = Annotated[ProbeSpec | None, AfterValidator(lambda probes: probes if probes and probes.active else None)]
"""An optional section of a study; one that measures nothing is none."""
