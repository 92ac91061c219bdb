"""Our stems are the published ones: with the weights of timm's and torchvision's, they give the same maps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from einops import rearrange
from originals import ZOO, Original, copy_weights
from other_originals import STEMS
from torch import nn

from stemlab import StemSpec, build_stem, zoo

pytestmark = pytest.mark.zoo

TOLERANCE = 1e-10
"""In double precision, where rounding stays below it and a wrong epsilon does not."""


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Compute in one thread: a depthwise convolution in double precision is many small steps, and threads wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def as_map(output: Any, like: torch.Tensor) -> torch.Tensor:
    """Return tokens or a map, in whatever layout the original gives them, as (batch, channels, height, width)."""
    tokens = output[0] if isinstance(output, tuple) else output
    if tokens.ndim == 3:
        return rearrange(tokens, "b (h w) d -> b d h w", h=like.shape[2])
    return tokens if tokens.shape == like.shape else rearrange(tokens, "b h w d -> b d h w")


def our_stem(spec: StemSpec, dim: int, image_size: int) -> nn.Module:
    """Return the stem alone, in double precision."""
    return build_stem(spec, dim, image_size).layers.double()


def images(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, dtype=torch.double)


@torch.no_grad()
def distance(theirs: nn.Module, ours: nn.Module, x: torch.Tensor, training: bool = False) -> float:
    """Return the largest difference of the two maps, and in training of the running statistics after it."""
    pairs = copy_weights(theirs, ours, x)
    mine = ours.train(training)(x)
    other = as_map(theirs.train(training)(x), mine)
    assert mine.shape == other.shape
    buffers = [(a, b) for m, n in pairs for a, b in zip(m.buffers(), n.buffers(), strict=True)]
    return max(float((a - b).abs().max()) for a, b in [(mine, other), *buffers])


def assert_equal(original: Original, spec: StemSpec, dim: int, image_size: int) -> None:
    torch.manual_seed(0)
    theirs, ours, x = original.build(), our_stem(spec, dim, image_size), images(image_size)
    assert distance(theirs, ours, x) < TOLERANCE
    assert distance(theirs, ours, x, training=True) < TOLERANCE


def assert_mistakes_are_found(original: Original, spec: StemSpec, dim: int, image_size: int) -> None:
    torch.manual_seed(0)
    theirs, x = original.build(), images(image_size)
    wrong = [StemSpec.model_validate({"layers": layers}) for layers in mistakes(spec.canonical()["layers"])]
    assert wrong
    missed = [stem for stem in wrong if distance(theirs, our_stem(stem, dim, image_size), x) < TOLERANCE]
    assert not missed


@pytest.mark.parametrize("name", ZOO)
def test_a_stem_of_the_zoo_is_the_original(name):
    original, entry = ZOO[name], zoo.get(name)
    assert_equal(original, entry.stem, entry.dim, original.image_size or entry.image_size)


def test_every_stem_that_timm_or_torchvision_ships_is_compared():
    checked = {name: zoo.get(name).checked for name in zoo.names()}
    shipped = {name: what for name, what in checked.items() if what.split()[0] in ("timm", "torchvision")}
    assert shipped == {name: original.name for name, original in ZOO.items()}


@pytest.mark.parametrize("name", STEMS)
def test_a_stem_outside_the_zoo_can_be_written_down(name):
    original, written = STEMS[name]
    spec, size = StemSpec.model_validate(written), original.image_size or 224
    dim = zoo.get(written).dim if isinstance(written, str) else spec.trace(size, size, 1).end.channels
    assert_equal(original, spec, dim, size)


def changed(layer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the layer as it would be written by someone who mistook one thing in it."""
    match layer["op"]:
        case "norm":
            yield {**layer, "eps": 2 * layer["eps"]}
        case "act":
            kept = {"gain": layer["gain"]} if "gain" in layer else {}
            other = {"gelu": "gelu_tanh", "gelu_tanh": "gelu", "relu": "silu"}.get(layer["kind"], "relu")
            yield {"op": "act", "kind": other, **kept}
            if kept:
                yield {"op": "act", "kind": layer["kind"]}
        case "conv" | "pad":
            yield from ({**layer, "padding": padding} for padding in _other_paddings(layer))
            if "standardize" in layer:
                yield {**layer, "standardize": {**layer["standardize"], "eps": 2 * layer["standardize"]["eps"]}}
        case "pool" if layer["kind"] != "global":
            yield from ({**layer, "padding": padding} for padding in _other_paddings(layer))
            if layer["kind"] == "avg" and layer["padding"]:
                yield {**layer, "count_include_pad": not layer["count_include_pad"]}
        case "parallel" if layer["merge"] != "concat":
            yield {**layer, "merge": {"sum": "mul", "mul": "sum"}[layer["merge"]]}
        case "space_to_depth":
            yield {**layer, "order": "c h w"}


def _other_paddings(layer: dict[str, Any]) -> Iterator[Any]:
    padding, strided = layer["padding"], layer.get("stride", 1) != 1
    if padding == "tf_same" and strided:
        yield layer["kernel"] // 2
    elif isinstance(padding, int) and padding and strided:
        yield [padding - 1, padding, padding - 1, padding]
    elif isinstance(padding, int) and padding and layer["op"] != "pool":
        yield [padding - 1, padding + 1, padding, padding]


def mistakes(layers: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the layers with one of them, at any depth, mistaken, or a norm and an activation in the other order."""
    for index, layer in enumerate(layers):
        before, behind = layers[:index], layers[index + 1 :]
        for other in changed(layer):
            yield [*before, other, *behind]
        if behind and {layer["op"], behind[0]["op"]} == {"norm", "act"}:
            yield [*before, behind[0], layer, *behind[1:]]
        for number, branch in enumerate(layer.get("branches", [])):
            for mistaken in mistakes(branch):
                branches = [*layer["branches"][:number], mistaken, *layer["branches"][number + 1 :]]
                yield [*before, {**layer, "branches": branches}, *behind]


@pytest.mark.parametrize(
    "name", ["patchify4_swin_t", "convmixer_768_32", "maxvit_t", "mobileone_s0_train", "vit_hybrid_r_s16_p8_ti"]
)
def test_one_mistake_in_a_stem_of_the_zoo_is_found(name):
    entry = zoo.get(name)
    assert_mistakes_are_found(ZOO[name], entry.stem, entry.dim, ZOO[name].image_size or entry.image_size)


@pytest.mark.parametrize("name", ["dm_nfnet", "tresnet", "gcvit", "mobilenetv3", "inception_v3"])
def test_one_mistake_in_a_stem_outside_the_zoo_is_found(name):
    original, written = STEMS[name]
    spec, size = StemSpec.model_validate(written), original.image_size
    assert_mistakes_are_found(original, spec, spec.trace(size, size, 1).end.channels, size)
