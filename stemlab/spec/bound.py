"""Bound: limits of one quantity."""

from __future__ import annotations

from pydantic import model_validator

from .base import Number, Spec, spec_error


class Bound(Spec):
    """Limits of one quantity, both included."""

    min: Number | None = None
    max: Number | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Bound:
        if self.min is None and self.max is None:
            raise spec_error("expected min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise spec_error(f"min (={self.min:g}) must not exceed max (={self.max:g})")
        return self

    def __str__(self) -> str:
        if self.min is None or self.max is None:
            return f"at least {self.min:g}" if self.max is None else f"at most {self.max:g}"
        return f"{self.min:g} to {self.max:g}"
