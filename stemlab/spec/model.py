"""MatchSpec and ModelSpec: what one model is."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import Number, Pair, PositiveInt, Spec, pair, relation_error
from .body import BodySpec
from .layers import Trace
from .stem import StemSpec


class MatchSpec(Spec):
    """Make the whole model cost what the same body costs with the `reference` stem.

    `adjust: [depth]` is the rule of arXiv 2106.14881 (drop blocks); with `mlp` the hidden width of the MLPs, a
    multiple of 8, closes what is left. `tolerance` is the largest relative difference allowed.
    """

    reference: StemSpec
    metric: Literal["flops", "params", "activations"] = "flops"
    adjust: Annotated[tuple[Literal["depth", "mlp"], ...], Field(min_length=1)] = ("depth", "mlp")
    tolerance: Annotated[Number, Field(gt=0, lt=1)] = 0.005


class ModelSpec(Spec):
    """Exactly one model: a stem on a body, for images of one size and a number of classes.

    With `match`, depth and MLP width of the body are those of the reference; `stemlab.match` says what they become.
    """

    stem: StemSpec
    body: BodySpec
    match: MatchSpec | None = None
    image_size: Pair = 224
    classes: PositiveInt = 1000

    @model_validator(mode="after")
    def _fits(self) -> ModelSpec:
        self._check_stem(self.stem, ("stem",))
        if self.match is not None:
            self._check_stem(self.match.reference, ("match", "reference"))
        return self

    def trace(self, stem: StemSpec | None = None) -> Trace:
        """Follow an image of the model's size through its stem, or through another one put on the same body."""
        return (stem or self.stem).trace(*pair(self.image_size), self.body.dim)

    def _check_stem(self, stem: StemSpec, at: tuple[str, ...]) -> None:
        misfit = stem.misfit(self.image_size, self.body.dim)
        if misfit is not None:
            raise relation_error(str(misfit), at=(*at, "layers", *misfit.path) if misfit.path else at)
