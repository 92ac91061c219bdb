"""The bodies that have a name: timm's plain ViTs, from a table, so that no name needs timm or torch.

`python tools/timm_bodies.py` writes the table, bodies.json, from the installed timm.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import nearest, short
from .base import spec_error

TABLE = Path(__file__).with_name("bodies.json")

# Widths, depths and heads by the size in a name, for patch sizes that timm has no model of.
_SIZES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}
_OF_A_SIZE = re.compile(rf"(?:vit|deit)_({'|'.join(_SIZES)})_patch\d+(?:_\d+)?")


@cache
def table() -> dict[str, Any]:
    """Return `bodies` (name -> fields), `refused` (name -> why it is no plain ViT) and `timm`, the version read."""
    loaded: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return loaded


def fields_of(name: str) -> dict[str, Any]:
    """Return the fields of the body with a name, which may carry the tag of pretrained weights, as timm's do."""
    architecture = name.partition(".")[0]
    known = table()
    if architecture in known["bodies"]:
        return dict(known["bodies"][architecture])
    if architecture in known["refused"]:
        raise spec_error(f"{short(name)} is not a plain ViT: {known['refused'][architecture]}")
    if found := _OF_A_SIZE.fullmatch(architecture):
        return dict(zip(("dim", "depth", "heads"), _SIZES[found[1]], strict=True))
    raise spec_error(
        f"unknown body {short(name)}; expected fields, or the name of one of timm's {len(known['bodies'])} plain ViTs, "
        f"such as vit_small_patch16_224{nearest(architecture, known['bodies'])}"
    )


def has_weights(name: str) -> bool:
    """Whether timm itself has a model of this name, so that there may be weights for it."""
    return name.partition(".")[0] in table()["bodies"]
