"""Stems as pictures: SVG from their traces, without torch or matplotlib."""

from .document import Diagram
from .figure import diagram

__all__ = ["Diagram", "diagram"]
