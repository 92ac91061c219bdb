"""A model in a folder, in the layout that timm and the Hugging Face hub share: config.json and model.safetensors."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models._hub import save_config_for_hf
from torch import nn

from .. import __version__
from ..errors import SpecError, StemlabError
from ..matching import match
from ..spec import ModelSpec
from ..spec.base import pair
from ..spec.files import dump_json, write_text

CONFIG, WEIGHTS = "config.json", "model.safetensors"

ARCHITECTURE = "stemlab"
"""The name under which timm makes a model from any spec (stemlab.timm_models)."""


def data_config(spec: ModelSpec, **changes: Any) -> dict[str, Any]:
    """Return timm's pretrained_cfg of a model: its input, its preprocessing (ImageNet's), its classifier."""
    return {
        "architecture": ARCHITECTURE,
        "input_size": (3, *pair(spec.image_size)),
        "fixed_input_size": True,
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "num_classes": spec.classes,
        "first_conv": None,
        "classifier": ("head", "head_dist") if spec.body.distilled else "head",
        **changes,
    }


def describe(model: Any, spec: ModelSpec, options: dict[str, Any], **preprocessing: Any) -> None:
    """Give a built model the attributes from which timm writes a config.json that makes it again.

    `spec` has no match left, so that the config names this network whatever a later matching would settle on.
    """
    spec = without_weights(spec)
    stem = model.patch_embed
    input_size = (stem.in_chans, *stem.img_size)
    sizes = {"input_size": input_size, "fixed_input_size": stem.strict_img_size}
    model.pretrained_cfg = data_config(spec, **sizes, **preprocessing)
    model.default_cfg = model.pretrained_cfg
    made_with = {name: value for name, value in options.items() if name not in ("device", "dtype")}
    model._model_args = {"spec": spec.canonical(), **made_with}
    name_first_conv(model)


def without_weights(spec: ModelSpec) -> ModelSpec:
    """Return the spec of a model whose weights are at hand, so that none need be fetched for it."""
    if spec.body.pretrained is None:
        return spec
    return spec.model_copy(update={"body": spec.body.model_copy(update={"pretrained": None})})


def name_first_conv(model: Any) -> None:
    """Tell timm which weight reads the image: it adapts that one to another number of input channels."""
    name = model.patch_embed.first_conv
    path = f"patch_embed.{name}" if name else None
    for known in (getattr(model, "pretrained_cfg", None), getattr(model, "_traits", None)):
        if known and "first_conv" in known:
            known["first_conv"] = path


def save(model: Any, spec: ModelSpec, folder: Path, preprocessing: Mapping[str, Any] | None = None) -> None:
    """Write model.safetensors and config.json into a folder: timm's config, and our spec, body, match and cost.

    `preprocessing` is that of the images it was trained on, in the words of timm's pretrained_cfg.
    """
    if preprocessing:
        model.pretrained_cfg = {**model.pretrained_cfg, **preprocessing}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StemlabError(f"{folder}: cannot be made: {error.strerror}") from None
    temporary = folder / f".{WEIGHTS}.part"
    try:
        config = dump_json(_config(model, spec))
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, temporary)
        temporary.chmod(0o644)  # safetensors would keep them from everybody else
        temporary.replace(folder / WEIGHTS)
    except Exception as error:  # safetensors reports a full disk by an exception of its own
        temporary.unlink(missing_ok=True)
        raise StemlabError(f"{folder}: cannot be written into: {error}") from None
    write_text(folder / CONFIG, config)


def _config(model: nn.Module, spec: ModelSpec) -> dict[str, Any]:
    settled = match(spec)
    ours = {
        "stemlab": __version__,
        "spec": spec.canonical(),
        "body": settled.model.body.canonical(),
        "match": settled.as_dict(),
        "cost": settled.cost.as_dict(),
    }
    made_with = {"spec": without_weights(settled.model).canonical()}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / CONFIG
        save_config_for_hf(model, str(path), model_config=ours, model_args=made_with)
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return config


def load_weights(model: nn.Module, folder: Path) -> None:
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
