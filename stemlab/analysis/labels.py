"""What a proposal is, in a few words: short names for tables and figures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import groupby
from typing import Any

from pydantic import ValidationError

from ..quantities import side
from ..records import TrialRecord
from ..spec import ActLayer, ConvLayer, NormLayer, PatchifyLayer, PoolLayer, Spec, StemSpec
from ..spec.base import pair
from ..spec.layers import show_size


def label(record: TrialRecord) -> str:
    """Return what a proposal is in a few words, its stem and then the other holes: `patchify 8, lr=0.001`."""
    stem = record.model.get("stem")
    words = [] if stem is None else [stem_label(json.dumps(stem, sort_keys=True))]
    for path, value in record.assignment.items():
        # What was taken of a choice is given as filled, so the holes inside it are told already.
        inner = any(
            path.startswith(f"{other}.choice[") and isinstance(taken, dict | list)
            for other, taken in record.assignment.items()
        )
        if not inner and not re.match(r"model\.stem\b", path):
            words += _settings(path.rpartition(".")[2], value)
    return ", ".join(words)


def shared_label(trials: Sequence[TrialRecord]) -> str:
    """Return the label of a proposal: what its trials share, without the holes that were drawn for each."""
    first, *others = trials
    shared = {
        path: value
        for path, value in first.assignment.items()
        if all(path in other.assignment and other.assignment[path] == value for other in others)
    }
    return label(replace(first, assignment=shared))


@lru_cache(maxsize=4096)
def stem_label(stem: str) -> str:
    """Return a stem, given as JSON, in short, such as `conv 3x3 16/2-32/2 batch relu`.

    That one has 16, then 32 channels, both at stride 2, and a 1x1 projection to the body's width, which goes
    without saying. Columns that differ from layer to layer are written with dashes (`batch-layer`); what is
    not as usual is added (`bias`, `eps=0.001`).
    """
    try:
        layers = list(StemSpec.model_validate(json.loads(stem)).layers)
    except ValidationError:  # a layer of a plug-in or of a later version
        return stem
    if len(layers) > 1 and layers[-1] == ConvLayer(channels="dim", kernel=1, bias=True):
        layers.pop()
    parts: list[str] = []
    for is_conv, run in groupby(_blocks(layers), key=lambda block: isinstance(block[0], ConvLayer)):
        blocks = list(run)
        parts += [_columns(blocks)] if is_conv else [_name(block[0]) for block in blocks]
    return ", ".join(parts)


def _blocks(layers: Sequence[Any]) -> list[list[Any]]:
    """Return each convolution with its norm and activation, in either order; any other layer alone."""
    blocks: list[list[Any]] = []
    for layer in layers:
        block = blocks[-1] if blocks and isinstance(blocks[-1][0], ConvLayer) else None
        first_of_kind = block is not None and type(layer) not in map(type, block)
        if block is not None and first_of_kind and isinstance(layer, NormLayer | ActLayer):
            block.append(layer)
        else:
            blocks.append([layer])
    return blocks


def _columns(blocks: Sequence[list[Any]]) -> str:
    extras = [_unusual(block[0]) for block in blocks]
    shared = len(set(extras)) == 1
    sizes: list[tuple[str, str]] = []
    for (conv, *_), extra in zip(blocks, extras, strict=True):
        stride = "" if conv.stride == 1 else f"/{side(pair(conv.stride))}"
        inside = f"({extra})" if extra and not shared else ""
        sizes.append((show_size(conv.kernel), f"{conv.channels}{stride}{inside}"))
    words = ["conv"]
    for kernel, run in groupby(sizes, key=lambda size: size[0]):
        words += [kernel, "-".join(width for _, width in run)]
    kinds = [(NormLayer, "no norm"), (ActLayer, "no act")]
    if any(len(block) == 3 and isinstance(block[1], ActLayer) for block in blocks):
        kinds.reverse()
    for kind, nothing in kinds:
        found = [next((layer for layer in block if isinstance(layer, kind)), None) for block in blocks]
        names = ["none" if layer is None else _name(layer) for layer in found]
        alike = names[0] if any(found) else nothing
        words.append(alike if len(set(names)) == 1 else "-".join(names))
    return " ".join([*words, extras[0]] if shared and extras[0] else words)


def _name(layer: Any) -> str:
    if layer.op not in _SAID:
        return str(compact(layer.canonical()))
    if isinstance(layer, PatchifyLayer):
        text = f"patchify {side(pair(layer.patch))}"
    elif isinstance(layer, PoolLayer):
        window = f" {show_size(layer.kernel)}/{side(pair(layer.stride))}" if layer.kernel and layer.stride else ""
        text = f"{layer.kind} pool{window}"
    else:
        text = str(layer.kind)
    extra = _unusual(layer)
    return f"{text}({extra})" if extra else text


_SAID = {
    "conv": ("channels", "kernel", "stride", "dilation"),
    "pool": ("kind", "kernel", "stride"),
    "patchify": ("patch",),
    "norm": ("kind",),
    "act": ("kind",),
}
"""What makes a layer of each op, all else being as usual."""


def _unusual(layer: Any) -> str:
    plain = type(layer).model_validate({name: getattr(layer, name) for name in ("op", *_SAID[layer.op])})
    words = []
    for name in type(layer).model_fields:
        value = getattr(layer, name)
        usual = 1 if name == "dilation" else getattr(plain, name)
        if value != usual and isinstance(value, bool):
            words.append(name if value else f"no {name}")
        elif value != usual:
            words.append(f"{name}={compact(value.canonical() if isinstance(value, Spec) else value)}")
    return " ".join(words)


def _settings(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key != "stem":
                yield from _settings(key, item)
    else:
        yield f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={compact(value)}"


def compact(value: Any) -> Any:
    """Return a list or mapping as compact JSON, anything else as it is: what a table cell can hold."""
    return json.dumps(value, separators=(",", ":")) if isinstance(value, list | dict | tuple) else value
