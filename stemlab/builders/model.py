"""From a ModelSpec to timm's model with our stem; to a folder and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from .. import __version__
from ..errors import SpecError, StemlabError, short
from ..matching import match
from ..spec import ModelSpec, StemSpec
from ..spec.base import pair
from ..spec.files import dump_json, write_text
from .body import build_body
from .pretrained import load_pretrained
from .stem import Stem

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def build_model(spec: ModelSpec, seed: int | None = None, **options: Any) -> VisionTransformer | Eva:
    """Return timm's model of a spec, matched first where the spec asks for it.

    It is a VisionTransformer, or an Eva where the body has rotary embeddings or keys without bias. `seed` fixes the
    initial weights and leaves torch's global generator as it was. `options` go to timm's class:
    `dynamic_img_size=True`, `drop_path_rate=0.1`, ... Pretrained weights that the body asks for are loaded.

    Shape: (batch, 3, H, W) -> logits (batch, classes).
    """
    if seed is not None:
        if not 0 <= seed < 2**32:
            raise SpecError(f"seed (={short(seed)}) must be at least 0 and less than 2**32")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_model(spec, **options)
    settled = match(spec).model
    model = build_body(settled.body, settled.stem, pair(settled.image_size), settled.classes, **options)
    if settled.body.pretrained is not None:
        load_pretrained(model, settled.body.pretrained)
    return model


def build_stem(spec: StemSpec, dim: int, image_size: int | tuple[int, int] = 224, **options: Any) -> Stem:
    """Return a stem alone, on a body of width `dim`: (batch, 3, H, W) -> (batch, tokens, dim)."""
    return Stem(spec, img_size=image_size, embed_dim=dim, **options)


def save(model: VisionTransformer | Eva, spec: ModelSpec, folder: Path) -> None:
    """Write config.json (the spec, its cost and match) and model.safetensors into a folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StemlabError(f"{folder}: cannot be made: {error.strerror}") from None
    settled = match(spec)
    config = {
        "stemlab": __version__,
        "spec": spec.canonical(),
        "body": settled.model.body.canonical(),
        "match": settled.as_dict(),
        "cost": settled.cost.as_dict(),
    }
    temporary = folder / f".{WEIGHTS}.part"
    try:
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, temporary)
        temporary.replace(folder / WEIGHTS)
    except Exception as error:  # safetensors reports a full disk by an exception of its own
        temporary.unlink(missing_ok=True)
        raise StemlabError(f"{folder / WEIGHTS}: cannot be written: {error}") from None
    write_text(folder / CONFIG, dump_json(config))


def load_weights(model: VisionTransformer | Eva, folder: Path) -> None:
    """Load the weights that `save` wrote; SpecError where they are another model's."""
    path = folder / WEIGHTS
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from None
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in weights.items()}
    wrong = sorted(name for name in own.keys() | theirs.keys() if own.get(name) != theirs.get(name))
    if wrong:
        name = wrong[0]
        raise SpecError(
            f"{path}: not the weights of {folder / CONFIG}: {len(wrong)} tensors differ; the first, {name}, is "
            f"{theirs.get(name, 'missing')} where {own.get(name, 'nothing')} is expected"
        )
    model.load_state_dict(weights)
