"""Stems as pictures: SVG from their traces, without torch or matplotlib."""

from .figure import Diagram, check_path, diagram

__all__ = ["Diagram", "check_path", "diagram"]
