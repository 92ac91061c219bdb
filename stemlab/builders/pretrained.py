"""timm's pretrained weights, for a body with a stem of ours."""

from __future__ import annotations

from typing import Any

import timm

from ..errors import SpecError, StemlabError


def load_pretrained(model: Any, name: str) -> dict[str, Any]:
    """Load the weights that timm has under a name into all of a model but its stem; return their preprocessing.

    The name is that of timm's model, with or without the tag of its weights. The learned embeddings of positions are
    resized to the stem's grid, and the head stays as timm initialises it where the weights are for other classes.
    SpecError where timm has no such weights, StemlabError where they cannot be fetched.
    """
    try:
        donor: Any = timm.create_model(name, pretrained=True, num_classes=model.num_classes)
    except RuntimeError as error:
        raise SpecError(f"pretrained {name}: {_first_line(error)}") from None
    except Exception as error:  # a hub, a network and a disk have exceptions of many kinds
        raise StemlabError(f"pretrained {name}: its weights cannot be fetched: {_first_line(error)}") from None
    (rows, columns), (height, width) = model.patch_embed.grid_size, donor.patch_embed.patch_size
    donor.set_input_size(img_size=(rows * height, columns * width))
    weights = {key: value for key, value in donor.state_dict().items() if not key.startswith("patch_embed.")}
    stem = {f"patch_embed.{key}": value for key, value in model.patch_embed.state_dict().items()}
    model.load_state_dict(weights | stem)
    known = donor.pretrained_cfg
    return {key: known[key] for key in ("mean", "std", "interpolation", "crop_pct") if key in known}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
