"""Stems as pictures: SVG from their traces, without torch or matplotlib."""

from .document import Diagram, check_path
from .figure import diagram

__all__ = ["Diagram", "check_path", "diagram"]
