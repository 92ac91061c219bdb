"""Data sets, split once and for all into parts that train, that choose, and that only report."""

from .digits import load_digits
from .split import Part, Splits

__all__ = ["Part", "Splits", "load_digits"]
