"""What every analysis asks of its arguments, refused in the same words."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from ..errors import SpecError, nearest, one_of, short


def need_columns(frame: pd.DataFrame, *names: str) -> None:
    """SpecError unless the frame has these columns."""
    for name in names:
        if name not in frame.columns:
            columns = [str(column) for column in frame.columns]
            raise SpecError(
                f"column (={name!r}) is not in the frame; expected {one_of(columns)}{nearest(name, columns)}"
            )


def need_level(levels: Collection[object], baseline: str) -> None:
    """SpecError unless the baseline is one of the arms, or of the levels of a factor."""
    names = [str(level) for level in levels]
    if baseline not in levels:
        raise SpecError(f"baseline (={baseline!r}) is not there; expected {one_of(names)}{nearest(baseline, names)}")


def need_share(argument: str, value: float) -> None:
    """SpecError unless `value` is a number between 0 and 1, neither of them."""
    if not isinstance(value, int | float) or not 0 < value < 1:
        raise SpecError(f"{argument} (={short(value)}): expected a number between 0 and 1")


def need_resamples(value: int) -> None:
    """SpecError unless there are resamples enough to have a tail."""
    if not isinstance(value, int) or value < 100:
        raise SpecError(f"resamples (={short(value)}): expected a whole number of at least 100")


def need_one_of(argument: str, value: str, valid: tuple[str, ...]) -> None:
    """SpecError unless `value` is one of the valid words."""
    if value not in valid:
        raise SpecError(f"{argument} (={short(value)}): expected {one_of(valid)}{nearest(value, valid)}")
