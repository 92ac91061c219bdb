"""Seeds: those that every proposal or arm of a study is trained with."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from .base import Seed, spec_error


def _differ(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise spec_error(f"seeds must differ, got {list(seeds)}")
    return seeds


Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_differ)]
