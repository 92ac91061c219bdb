"""The colours. No colour says what a word or a shape does not; all text is dark on light."""

from __future__ import annotations

INK, SOFT, FAINT, PAPER = "#1f2328", "#57606a", "#d0d7de", "#ffffff"
CARDS = ("#f3f5f8", "#ffffff")
"""The grounds of branches, and of branches within them."""

BAR, BACK, SIDE = "#0072B2", "#eef1f5", "#b8c2cd"
"""Bars, and the two sides of a map that are seen beside its white front."""

LOOKS = {
    "conv": ("#cfe4f5", "#0072B2"),
    "patchify": ("#fbdcc4", "#D55E00"),
    "move": ("#cdece1", "#007a59"),
    "norm": ("#e6e9ed", "#8c959f"),
    "act": ("#fdf3bd", "#a08a00"),
    "other": ("#f3dcea", "#b0558c"),
}
"""Fill and edge of a layer: tints of the colours of Okabe and Ito (https://jfly.uni-koeln.de/color/)."""
