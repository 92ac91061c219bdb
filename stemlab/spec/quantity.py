"""Quantity: the costs of a matched model that a study may bound or seek."""

from __future__ import annotations

from typing import Literal

Quantity = Literal[
    "flops", "bias_adds", "params", "activations",
    "stem_flops", "stem_params", "stem_activations",
    "body_flops", "body_params", "body_activations",
    "stem_flops_share", "match_error",
]  # fmt: skip
"""Fields of stemlab.Cost, or the match's remaining error."""
