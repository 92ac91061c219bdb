"""Layers against plain loops and plain torch written by hand: what each op computes, to the last rule of padding."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from stemlab import StemSpec


def built(*layers, size=(9, 7), channels=3, dim=24) -> nn.Sequential:
    return StemSpec.model_validate({"layers": list(layers)}).trace(*size, dim, channels).build().eval()


def conv(channels, kernel=1, **more):
    return {"op": "conv", "channels": channels, "kernel": kernel, **more}


# Pools.


def naive_pool(x, kind, kernel, stride, sides, count_include_pad):
    """One image (channels, height, width), one window at a time; `sides` is (left, right, top, bottom)."""
    left, right, top, bottom = sides
    channels, height, width = x.shape
    rows = (height + top + bottom - kernel[0]) // stride[0] + 1
    columns = (width + left + right - kernel[1]) // stride[1] + 1
    result = np.empty((channels, rows, columns))
    for row in range(rows):
        for column in range(columns):
            y, z = row * stride[0] - top, column * stride[1] - left
            window = x[:, max(y, 0) : max(y + kernel[0], 0), max(z, 0) : max(z + kernel[1], 0)]
            if kind == "max":
                result[:, row, column] = window.max((1, 2))
            else:
                counted = math.prod(kernel) if count_include_pad else window[0].size
                result[:, row, column] = window.sum((1, 2)) / counted
    return result


def tensorflow_sides(size, kernel, stride):
    """SAME: ceil(n / stride) outputs, the odd pixel of padding behind (tensorflow.org/api_docs/python/tf/nn)."""
    sides = []
    for n, k, s in reversed(list(zip(size, kernel, stride, strict=True))):
        total = max(k - s, 0) if n % s == 0 else max(k - n % s, 0)
        sides += [total // 2, total - total // 2]
    return sides


pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))
pooling = {"kind": st.sampled_from(["max", "avg"]), "kernel": pairs, "stride": pairs, "count": st.booleans()}


def pool(kind, kernel, stride, padding, count):
    fields = {"count_include_pad": count} if kind == "avg" else {}
    return {"op": "pool", "kind": kind, "kernel": list(kernel), "stride": list(stride), "padding": padding, **fields}


@given(size=st.tuples(st.integers(4, 9), st.integers(4, 9)), **pooling)
@settings(max_examples=40)
def test_tf_same_pools_are_tensorflows(size, kind, kernel, stride, count):
    # Negative maps, so that a zero of the padding would win a maximum.
    x = -1 - torch.rand(2, 3, *size)
    found = built(pool(kind, kernel, stride, "tf_same", count), size=size)(x)
    assert found.shape[2:] == tuple(-(-n // s) for n, s in zip(size, stride, strict=True))
    sides = tensorflow_sides(size, kernel, stride)
    for one, expected in zip(found, x.numpy(), strict=True):
        np.testing.assert_allclose(one, naive_pool(expected, kind, kernel, stride, sides, count), rtol=1e-5)


@given(data=st.data(), size=st.tuples(st.integers(4, 9), st.integers(4, 9)), **pooling)
@settings(max_examples=40)
def test_pools_with_unequal_sides_are_windows_over_what_is_inside(data, size, kind, kernel, stride, count):
    halves = (kernel[1] // 2,) * 2 + (kernel[0] // 2,) * 2
    sides = data.draw(st.tuples(*(st.integers(0, half) for half in halves)))
    x = -1 - torch.rand(1, 3, *size)
    found = built(pool(kind, kernel, stride, list(sides), count), size=size)(x)
    np.testing.assert_allclose(found[0], naive_pool(x[0].numpy(), kind, kernel, stride, sides, count), rtol=1e-5)


def test_same_pools_are_padded_by_half_the_kernel():
    x = torch.randn(2, 3, 9, 7)
    found = built(pool("avg", (3, 3), (2, 2), "same", False))(x)
    torch.testing.assert_close(found, F.avg_pool2d(x, 3, 2, 1, count_include_pad=False))


def test_global_pools_are_means():
    x = torch.randn(2, 3, 9, 7)
    torch.testing.assert_close(built({"op": "pool", "kind": "global"})(x), x.mean((2, 3), keepdim=True))


# Moving pixels.


def test_c_h_w_is_pixel_unshuffle():
    x = torch.randn(2, 3, 6, 9)
    found = built({"op": "space_to_depth", "block": 3, "order": "c h w"}, size=(6, 9))(x)
    assert torch.equal(found, nn.PixelUnshuffle(3)(x))


def test_w_h_c_is_the_patch_merging_of_swin():
    x = torch.randn(2, 3, 6, 8)
    slices = [x[:, :, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
    found = built({"op": "space_to_depth", "order": "w h c"}, size=(6, 8))(x)
    assert torch.equal(found, torch.cat(slices, dim=1))


def test_h_w_c_is_tensorflows_space_to_depth():
    """By its definition on (height, width, depth): the block's rows, then columns, then the input's depth."""
    x = torch.randn(3, 6, 8)
    found = built({"op": "space_to_depth", "order": "h w c"}, size=(6, 8))(x[None])[0]
    for row in range(3):
        for column in range(4):
            block = [x[:, 2 * row + i, 2 * column + j] for i in range(2) for j in range(2)]
            assert torch.equal(found[:, row, column], torch.cat(block))


@pytest.mark.parametrize("order", ["c h w", "c w h", "h c w", "h w c", "w c h", "w h c"])
def test_any_order_counts_the_slowest_first(order):
    block, sizes = (2, 3), {"c": 3, "h": 2, "w": 3}
    x = torch.randn(3, 4, 6)
    found = built({"op": "space_to_depth", "block": [2, 3], "order": order}, size=(4, 6))(x[None])[0]
    names = order.split()
    for index in range(18):
        at, rest = {}, index
        for name in reversed(names):
            rest, at[name] = divmod(rest, sizes[name])
        assert torch.equal(found[index], x[at["c"], at["h"] :: block[0], at["w"] :: block[1]])


def test_a_pad_is_left_right_top_bottom():
    x = torch.randn(1, 2, 3, 4)
    found = built({"op": "pad", "padding": [1, 2, 3, 4], "value": -7.0}, size=(3, 4), channels=2)(x)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (3, 4), (1, 2)), constant_values=-7)
    assert np.array_equal(found.numpy(), expected)
    found = built({"op": "pad", "padding": [1, 2]}, size=(3, 4), channels=2)(x)
    assert np.array_equal(found.numpy(), np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (2, 2))))


# Weights and activations.


@pytest.mark.parametrize("padding", ["same", "tf_same", [0, 1, 2, 0]])
@pytest.mark.parametrize("fields", [{}, {"eps": 0.5}, {"gain": True}, {"gain": True, "gamma": 1.7, "eps": 1e-3}])
def test_standardised_convolutions(fields, padding):
    """A filter less its mean, over its deviation, times gain * gamma / sqrt(fan_in); arXiv 1903.10520, 2101.08692."""
    layer = conv(8, [3, 2], stride=2, groups=2, bias=True, padding=padding, standardize=fields)
    model = built(layer, channels=4)
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=0.3)
    weights = {name.rpartition(".")[2]: value.detach() for name, value in model.named_parameters()}
    weight = weights["weight"]
    centred = weight - weight.mean((1, 2, 3), keepdim=True)
    standard = centred / (centred.square().mean((1, 2, 3), keepdim=True) + fields.get("eps", 1e-6)).sqrt()
    if fields.get("gain"):
        standard = standard * weights["gain"] * fields.get("gamma", 1.0) / math.sqrt(2 * 3 * 2)
    assert ("gain" in weights) is fields.get("gain", False)
    x = torch.randn(2, 4, 9, 7)
    sides = {"same": (0, 1, 1, 1), "tf_same": tensorflow_sides((9, 7), (3, 2), (2, 2))}
    padded = F.pad(x, tuple(padding if isinstance(padding, list) else sides[padding]))
    expected = F.conv2d(padded, standard, weights["bias"], 2, groups=2)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)


ACTS = {
    "hardsigmoid": lambda x: (x / 6 + 0.5).clamp(0, 1),
    "quick_gelu": lambda x: x / (1 + torch.exp(-1.702 * x)),
    "selu": lambda x: 1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * (torch.exp(x) - 1)),
    "celu": lambda x: torch.where(x > 0, x, 0.5 * (torch.exp(x / 0.5) - 1)),
    "elu": lambda x: torch.where(x > 0, x, 0.5 * (torch.exp(x) - 1)),
    "softplus": lambda x: torch.log(1 + torch.exp(x)),
    "relu": lambda x: x.clamp(min=0),
}


@pytest.mark.parametrize("gain", [None, 1, 1.7, -0.5])
@pytest.mark.parametrize("kind", ACTS)
def test_activations_are_their_formulas(kind, gain):
    alpha = {"alpha": 0.5} if kind in ("celu", "elu") else {}
    x = torch.linspace(-5, 5, 3 * 9 * 7).reshape(1, 3, 9, 7)
    found = built({"op": "act", "kind": kind, "gain": gain, **alpha})(x)
    torch.testing.assert_close(found, ACTS[kind](x) * (1 if gain is None else gain))


# Blocks, by hand with the same weights.


def randomised(model: nn.Module) -> nn.Module:
    """Make every weight and statistic other than its default, so that none can be left out unseen."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


def test_a_residual_block():
    inner = [conv(6, 3, norm="batch", act="relu"), conv(6, 3, norm="batch")]
    shortcut = [conv(6, 1, stride=2, norm="batch")]
    inner[0]["stride"] = 2
    model = randomised(built({"op": "parallel", "branches": [inner, shortcut]}, {"op": "act", "kind": "relu"}))
    a, b = model.parallel1.branches
    x = torch.randn(2, 3, 9, 7)

    def norm(x, n):
        scale = n.weight / (n.running_var + 1e-5).sqrt()
        return (x - n.running_mean[:, None, None]) * scale[:, None, None] + n.bias[:, None, None]

    y = torch.relu(norm(F.conv2d(x, a.conv1.weight, stride=2, padding=1), a.norm1))
    y = norm(F.conv2d(y, a.conv2.weight, padding=1), a.norm2)
    y = torch.relu(y + norm(F.conv2d(x, b.conv1.weight, stride=2), b.norm1))
    torch.testing.assert_close(model(x), y, rtol=1e-4, atol=1e-4)


def test_squeeze_and_excite():
    gate = [{"op": "pool", "kind": "global"}, conv(2, bias=True, act="relu"), conv(8, bias=True, act="sigmoid")]
    model = randomised(built({"op": "parallel", "merge": "mul", "branches": [[], gate]}, channels=8))
    convs = model.parallel1.branches[1]
    x = torch.randn(2, 8, 9, 7)
    squeezed = x.mean((2, 3))
    hidden = torch.relu(squeezed @ convs.conv1.weight.flatten(1).T + convs.conv1.bias)
    factor = torch.sigmoid(hidden @ convs.conv2.weight.flatten(1).T + convs.conv2.bias)
    torch.testing.assert_close(model(x), x * factor[:, :, None, None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("split", ["equal", [4, 4], ["dim/6", 4], [3, 5]])
def test_instance_and_batch_norm_side_by_side(split):
    """The IBN block of arXiv 1807.09441: instance norm on the first channels, batch norm on the rest."""
    norms = [[{"op": "norm", "kind": kind}] for kind in ("instance", "batch")]
    model = randomised(built({"op": "parallel", "split": split, "branches": norms}, channels=8))
    count = 3 if split == [3, 5] else 4
    instance, batch = (branch.norm1 for branch in model.parallel1.branches)
    x = torch.randn(2, 8, 9, 7)
    first, rest = x[:, :count], x[:, count:]
    mean, variance = first.mean((2, 3), keepdim=True), first.var((2, 3), unbiased=False, keepdim=True)
    first = (first - mean) / (variance + 1e-5).sqrt() * instance.weight[:, None, None] + instance.bias[:, None, None]
    rest = F.batch_norm(rest, batch.running_mean, batch.running_var, batch.weight, batch.bias)
    torch.testing.assert_close(model(x), torch.cat([first, rest], dim=1), rtol=1e-4, atol=1e-4)


def test_blocks_in_blocks():
    """(x + f(x)) * g(x) beside h(x), concatenated."""
    residual = {"op": "parallel", "branches": [[], [conv(4, bias=True)]]}
    product = {"op": "parallel", "merge": "mul", "branches": [[residual], [conv(1)]]}
    model = built({"op": "parallel", "merge": "concat", "branches": [[product], [conv(2, 3)]]}, channels=4)
    weights = {tuple(p.shape): p for p in model.parameters()}
    x = torch.randn(2, 4, 9, 7)
    left = (x + F.conv2d(x, weights[4, 4, 1, 1], weights[4,])) * F.conv2d(x, weights[1, 4, 1, 1])
    right = F.conv2d(x, weights[2, 4, 3, 3], padding=1)
    torch.testing.assert_close(model(x), torch.cat([left, right], dim=1))
