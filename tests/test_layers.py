"""The whole vocabulary of layers, branches within branches included: what a spec says is what its module does."""

from __future__ import annotations

import math

import pytest
import torch
from counting import outputs
from fvcore.nn import FlopCountAnalysis
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from strategies_layers import both, layer_lists, standardizes
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from stemlab import StemSpec
from stemlab.builders import build_stem
from stemlab.modules.parallel import Parallel
from stemlab.spec.files import dump_json, dump_yaml, parse, validate
from stemlab.spec.layers import ShapeError, Trace

DIM = 24


@st.composite
def traces(draw, most: int = 40) -> Trace:
    """The way of an image of any size through a stem; sizes that its layers cannot take make room for larger ones."""
    spec = StemSpec.model_validate(draw(layer_lists(DIM)))
    sizes = draw(st.integers(1, most)), draw(st.integers(1, most))
    whole = tuple(-(-size // stride) * stride for size, stride in zip(sizes, spec.stride, strict=True))
    for height, width in (sizes, whole, tuple(2 * size for size in whole)):
        try:
            return spec.trace(height, width, DIM)
        except ShapeError:
            continue
    assume(False)


def built(trace: Trace, device: str = "meta") -> nn.Module:
    with torch.device(device):
        return trace.build().eval()


def image(trace: Trace, batch: int = 1, device: str = "meta") -> torch.Tensor:
    return torch.zeros(batch, *trace.start, device=device)


def each(layers, path=()):
    """Yield every layer of a document, those inside branches too."""
    for layer in layers:
        yield layer
        for branch in layer.get("branches", ()):
            yield from each(branch)


def rewritten(layers, change):
    """Return the layers with each replaced by the list that `change` makes of it, branches first."""
    result = []
    for layer in layers:
        if "branches" in layer:
            layer = {**layer, "branches": [rewritten(branch, change) for branch in layer["branches"]]}
        result += change(layer)
    return result


# What the trace says.


@given(traces())
@settings(max_examples=120)
def test_the_module_is_what_the_trace_says(trace):
    """Shape, parameters, multiply-adds by torch's own counter, and the outputs of its convolutions."""
    model, x = built(trace), image(trace)
    with FlopCounterMode(display=False) as counter:
        y = model(x)
    assert tuple(y.shape) == (1, *trace.end)
    assert sum(p.numel() for p in model.parameters()) == trace.counts.params
    assert counter.get_total_flops() == 2 * trace.counts.flops
    assert outputs(model, x) == (trace.counts.activations, trace.counts.bias_adds)


@given(traces())
@settings(max_examples=15)
def test_fvcore_counts_the_same(trace):
    analysis = FlopCountAnalysis(built(trace, "cpu"), image(trace, device="cpu"))
    by_operator = analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    assert by_operator["conv"] + by_operator["linear"] == trace.counts.flops


@given(traces())
@settings(max_examples=60)
def test_every_layer_gives_its_own_traced_shape(trace):
    """On real numbers, which stay finite."""
    model, x = built(trace, "cpu"), torch.randn(1, *trace.start)
    with torch.no_grad():
        for step, module in zip(trace, model, strict=True):
            assert tuple(x.shape[1:]) == step.before
            x = module(x)
            assert tuple(x.shape[1:]) == step.after, step.layer
    assert torch.isfinite(x).all()


@given(traces())
@settings(max_examples=60)
def test_what_branches_cost_is_what_the_parallel_layer_costs(trace):
    for step in trace:
        if step.layer.op == "parallel":
            inside = step.layer.traces(step.before, DIM)
            assert step.counts == tuple(map(sum, zip(*(branch.counts for branch in inside), strict=True)))
            assert step.layer.describe().startswith(step.layer.merge)


# One form.


@given(layer_lists(DIM))
@settings(max_examples=120)
def test_a_stem_survives_a_file(document):
    spec = StemSpec.model_validate(document)
    for text, name in ((dump_json(spec.canonical()), "x.json"), (dump_yaml(spec.canonical()), "x.yaml")):
        again = validate(StemSpec, parse(text, name))
        assert again == spec
        assert again.digest == spec.digest
        assert hash(again) == hash(spec)


def flat(layer):
    """Return a convolution's norm and activation as layers behind it."""
    if layer["op"] != "conv":
        return [layer]
    conv = {name: value for name, value in layer.items() if name not in ("norm", "act", "order")}
    behind = [
        {"op": op, **(layer[op] if isinstance(layer[op], dict) else {"kind": layer[op]})}
        for op in ("norm", "act")
        if layer.get(op, "none") != "none"
    ]
    return [conv, *(reversed(behind) if layer.get("order") == "conv-act-norm" else behind)]


@given(layer_lists(DIM))
@settings(max_examples=120)
def test_norms_and_acts_of_convolutions_are_layers_in_branches_too(document):
    apart = {"layers": rewritten(document["layers"], flat)}
    assert all("norm" not in layer for layer in each(apart["layers"]) if layer["op"] == "conv")
    one, other = StemSpec.model_validate(document), StemSpec.model_validate(apart)
    assert one == other
    assert one.digest == other.digest


CONV = {"op": "conv", "channels": 6, "kernel": 3}
POOL = {"op": "pool", "kind": "avg", "kernel": 3}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({**CONV, "padding": [1, 2]}, {**CONV, "padding": [2, 2, 1, 1]}),
        ({**CONV, "padding": [1, 1]}, CONV),
        ({**CONV, "standardize": True}, {**CONV, "standardize": {"eps": 1e-6, "gain": False, "gamma": None}}),
        ({**CONV, "standardize": {"gain": True}}, {**CONV, "standardize": {"gain": True, "gamma": 1}}),
        ({**CONV, "standardize": False}, {**CONV, "standardize": None}),
        ({**CONV, "channels": "dim/1"}, {**CONV, "channels": "dim"}),
        ({**CONV, "act": {"kind": "elu", "gain": 1}}, {**CONV, "act": {"kind": "elu", "alpha": 1.0}}),
        ({**POOL, "padding": "same"}, {**POOL, "padding": 1, "stride": 3, "count_include_pad": True}),
        ({**POOL, "kernel": 2, "padding": "same"}, {**POOL, "kernel": 2, "padding": [0, 1, 0, 1]}),
        ({"op": "pad", "padding": 1, "value": -0.0}, {"op": "pad", "padding": [1, 1]}),
        ({"op": "space_to_depth"}, {"op": "space_to_depth", "block": [2, 2], "order": "c h w"}),
        (
            {"op": "parallel", "branches": [[], []], "split": "equal"},
            {"op": "parallel", "branches": [[], []], "split": "equal", "merge": "concat"},
        ),
        ({"op": "parallel", "branches": [[], []]}, {"op": "parallel", "branches": [[], []], "merge": "sum"}),
    ],
)
def test_equal_layers_have_equal_digests(first, second):
    one, other = (StemSpec.model_validate({"layers": [layer]}) for layer in (first, second))
    assert one == other
    assert one.digest == other.digest


def test_different_layers_have_different_digests():
    layers = [
        *({"op": "space_to_depth", "order": order} for order in ("c h w", "h w c", "w h c")),
        *({**CONV, "standardize": value} for value in (False, True, {"eps": 1e-3}, {"gain": True})),
        {**CONV, "standardize": {"gain": True, "gamma": 1.7}},
        *({"op": "act", "kind": "elu", **more} for more in ({}, {"alpha": 0.5}, {"gain": 1.7})),
        *({**POOL, "padding": padding} for padding in (0, 1, "tf_same", [0, 1, 0, 1], [0, 1])),
        *({"op": "pad", "padding": padding} for padding in (1, [1, 0], [0, 1])),
        {"op": "pad", "padding": 1, "value": 1.0},
        *({"op": "parallel", "branches": [[], []], "merge": merge} for merge in ("sum", "concat", "mul")),
        *({"op": "parallel", "branches": [[], []], "split": split} for split in ("equal", [1, 2], ["dim/2", "dim/2"])),
        {"op": "parallel", "branches": [[], [CONV]]},
        {"op": "parallel", "branches": [[CONV], []]},
        {"op": "parallel", "branches": [[], [{"op": "parallel", "branches": [[], [CONV]]}]]},
    ]
    assert len({StemSpec.model_validate({"layers": [layer]}).digest for layer in layers}) == len(layers)


# What an output position sees.


def linear(layer):
    """Return what lets gradients through wherever the layer looks."""
    if layer["op"] in ("norm", "act"):
        return []
    if layer["op"] == "pool":
        layer = {**layer, "kind": "avg"}
    return [{name: value for name, value in layer.items() if name not in ("standardize", "norm", "act", "value")}]


def has_middle(layer):
    """Whether branches of the layer see as far to one side as to the other."""
    return layer["op"] in ("conv", "pool", "parallel")


def centred(layer):
    """Return the layer with branches that look around one middle, as far as their ops have one."""
    if layer["op"] != "parallel":
        return [layer]
    branches = [
        [
            inner
            if inner["op"] == "parallel"
            else {**inner, "kernel": [size | 1 for size in both(inner["kernel"])], "padding": "same"}
            for inner in branch
        ]
        if all(map(has_middle, branch))
        else branch
        for branch in layer["branches"]
    ]
    return [{**layer, "branches": branches}]


def roomy(spec: StemSpec, positions: tuple[int, int]) -> Trace:
    """Trace an image of about so many positions, of a size that the layers can take."""
    height, width = (count * stride for count, stride in zip(positions, spec.stride, strict=True))
    for more in range(4):
        for size in ((height + more, width + more), (height + more, width), (height, width + more)):
            try:
                return spec.trace(*size, DIM)
            except ShapeError:
                continue
    assume(False)


@given(layer_lists(DIM).filter(lambda d: all(layer.get("kind") != "global" for layer in each(d["layers"]))))
@settings(max_examples=50)
def test_an_output_position_sees_its_receptive_field(document):
    """By the gradient of one output in the middle.

    Branches around different middles see more than the largest of them; splits of what was concatenated may see less.
    """
    layers = rewritten(rewritten(document["layers"], linear), centred)
    inner = [layer for outer in layers for branch in outer.get("branches", ()) for layer in each(branch)]
    spec = StemSpec.model_validate({"layers": layers})
    field = roomy(spec, (64, 64)).receptive_field
    trace = roomy(spec, tuple(2 * reach // stride + 12 for reach, stride in zip(field, spec.stride, strict=True)))
    model = built(trace, "cpu").double()
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    x = torch.ones(1, *trace.start, dtype=torch.double, requires_grad=True)
    y = model(x)
    y[0, :, y.shape[2] // 2, y.shape[3] // 2].sum().backward()
    rows, columns = (x.grad.abs().sum((0, 1, axis)).nonzero() for axis in (3, 2))
    seen = tuple(int(v.max() - v.min()) + 1 for v in (rows, columns))
    assert trace.receptive_field == field
    if all(map(has_middle, inner)):
        assert all(a <= b for a, b in zip(seen, field, strict=True))
    if not any("split" in layer for layer in each(layers)):
        assert all(a >= b for a, b in zip(seen, field, strict=True))


def test_a_global_pool_sees_the_whole_map():
    gate = [{"op": "pool", "kind": "global"}, {"op": "conv", "channels": 6, "kernel": 1}]
    layers = [{**CONV, "stride": 2}, {"op": "parallel", "merge": "mul", "branches": [[], gate]}]
    trace = StemSpec.model_validate({"layers": layers}).trace(17, 23, DIM)
    assert [step.stride for step in trace] == [(2, 2), (2, 2)]
    assert [step.receptive_field for step in trace] == [(3, 3), (3 + 8 * 2, 3 + 11 * 2)]


@pytest.mark.parametrize("inside", [{**CONV, "stride": 2}, {"op": "pool", "kind": "max", "kernel": 4}])
@pytest.mark.parametrize("nested", [False, True])
def test_what_is_pooled_to_one_position_has_no_stride(inside, nested):
    """A gate may look with any stride; the map that it multiplies keeps its own."""
    gate = [inside, {"op": "pool", "kind": "global"}]
    if nested:
        gate = [{"op": "parallel", "branches": [gate, gate]}]
    for around, stride in (([], 1), ([{**CONV, "stride": 3}], 3)):
        layers = [CONV, {"op": "parallel", "merge": "mul", "branches": [gate, around]}]
        spec = StemSpec.model_validate({"layers": layers})
        assert spec.stride == (stride, stride)
        trace = spec.trace(12, 18, DIM)
        assert trace.end == (6, 12 // stride, 18 // stride)
        assert tuple(built(trace)(image(trace)).shape[1:]) == trace.end


# What a batch changes: nothing.


@given(traces(most=24))
@settings(max_examples=40)
def test_in_eval_an_image_does_not_see_the_rest_of_its_batch(trace):
    torch.manual_seed(0)
    model = built(trace, "cpu")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    x = torch.randn(3, *trace.start)
    with torch.no_grad():
        together = model(x)
        alone = torch.cat([model(one) for one in x.split(1)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3 * float(alone.abs().max()))


# Initial weights.


@given(layer_lists(DIM), st.integers(0, 9))
@settings(max_examples=40)
def test_initial_weights_are_finite_and_of_the_seed(document, seed):
    spec = StemSpec.model_validate(document)
    size = [48 // stride * stride for stride in spec.stride]

    def weights(seed):
        torch.manual_seed(seed)
        return build_stem(spec, DIM, size).state_dict()

    try:
        spec.trace(*size, DIM)
    except ShapeError:
        assume(False)
    one, same, other = weights(seed), weights(seed), weights(seed + 1)
    assert all(torch.isfinite(value).all() for value in one.values())
    assert all(torch.equal(one[name], same[name]) for name in one)
    random = [name for name, value in one.items() if value.dim() == 4 and "gain" not in name]
    assert not any(torch.equal(one[name], other[name]) for name in random)


def check_std(weight: torch.Tensor, std: float) -> None:
    """Within five standard errors."""
    assert abs(weight.std().item() / std - 1) < 5 / math.sqrt(2 * weight.numel())


def test_convolutions_in_branches_start_by_what_is_behind_them():
    """What takes the merged map takes a branch's."""
    wide = {"op": "conv", "channels": 64, "kernel": 3}
    block = {"op": "parallel", "branches": [[{**wide, "norm": "batch"}, wide], [{**wide, "bias": True, "act": "relu"}]]}
    for behind, variance in (
        ([{"op": "norm", "kind": "batch"}], 2 / 64),
        ([{"op": "act", "kind": "relu"}], 2 / (64 * 9)),
        ([{"op": "pool", "kind": "max", "kernel": 2}], 1 / (64 * 9)),
        ([], 1 / (64 * 9)),
    ):
        stem = build_stem(StemSpec.model_validate({"layers": [wide, block, *behind]}), 64, 16)
        normed, last = (getattr(stem.layers.parallel1.branches[0], name) for name in ("conv1", "conv2"))
        check_std(normed.weight.detach(), math.sqrt(2 / 64))
        check_std(last.weight.detach(), math.sqrt(variance))
        rectified = stem.layers.parallel1.branches[1].conv1
        check_std(rectified.weight.detach(), math.sqrt(2 / (64 * 9)))
        assert not rectified.bias.any()


# Relations between values.


@pytest.mark.parametrize("merge", ["sum", "mul"])
@pytest.mark.parametrize("one", [(6, 1, 1), (1, 5, 7), (1, 1, 1), (6, 5, 1), (1, 1, 7)])
def test_sums_and_products_broadcast_axes_of_one(merge, one):
    whole, part = torch.randn(2, 6, 5, 7), torch.randn(2, *one)

    class Constant(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, x):
            return self.value

    for order in ((whole, part), (part, whole)):
        found = Parallel([Constant(value) for value in order], merge)(torch.zeros(2, 3, 5, 7))
        expected = torch.empty(2, 6, 5, 7)
        for b, c, h, w in torch.cartesian_prod(*map(torch.arange, expected.shape)).tolist():
            other = part[b, c % one[0], h % one[1], w % one[2]]
            expected[b, c, h, w] = whole[b, c, h, w] + other if merge == "sum" else whole[b, c, h, w] * other
        torch.testing.assert_close(found, expected)


@given(st.lists(st.integers(1, 3), min_size=3, max_size=3), st.lists(st.integers(1, 3), min_size=3, max_size=3))
@settings(max_examples=60)
def test_what_the_trace_refuses_to_merge_torch_refuses(one, other):
    """Two branches of any shapes: each by a crop of the map, which a pool without stride is, and a convolution."""

    def crop(shape):
        channels, height, width = shape
        kernel = [4 - height, 4 - width]
        return [
            {"op": "pool", "kind": "max", "kernel": kernel, "stride": 1},
            {**CONV, "channels": channels, "kernel": 1},
        ]

    maps = [torch.zeros(1, *shape) for shape in (one, other)]
    for merge, torch_merge in (("sum", sum), ("mul", math.prod), ("concat", lambda maps: torch.cat(list(maps), dim=1))):
        layer = {"op": "parallel", "merge": merge, "branches": [crop(one), crop(other)]}
        try:
            trace = StemSpec.model_validate({"layers": [layer]}).trace(3, 3, DIM)
        except ShapeError:
            with pytest.raises(RuntimeError):
                torch_merge(maps)
        else:
            assert tuple(torch_merge(maps).shape[1:]) == trace.end == tuple(built(trace)(image(trace)).shape[1:])


@given(standardizes, st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 2, 4]))
@settings(max_examples=40)
def test_standardised_filters_have_more_than_one_weight(standardize, height, width, groups):
    layer = {"op": "conv", "channels": 4, "kernel": [height, width], "groups": groups, "standardize": standardize}
    spec = StemSpec.model_validate({"layers": [{**CONV, "channels": 4}, layer]})
    if standardize is not False and height * width * (4 // groups) == 1:
        with pytest.raises(ShapeError, match="a filter of one weight"):
            spec.trace(5, 5, DIM)
    else:
        trace = spec.trace(5, 5, DIM)
        assert torch.isfinite(built(trace, "cpu")(torch.randn(1, *trace.start))).all()


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [1, 2])
def test_a_group_of_one_value_is_refused(groups, size):
    norm = {"op": "norm", "kind": "group", "groups": groups}
    spec = StemSpec.model_validate({"layers": [{**CONV, "norm": "none"}, norm]})
    if groups == 6 and size == 1:
        with pytest.raises(ShapeError, match="a group of one value"):
            spec.trace(size, size, DIM)
    else:
        trace = spec.trace(size, size, DIM)
        assert torch.isfinite(built(trace, "cpu")(torch.randn(1, *trace.start))).all()


@pytest.mark.parametrize("value", [True, "1", float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["gain", "alpha"])
def test_numbers_of_an_activation_are_numbers(name, value):
    with pytest.raises(ValidationError, match=f"act.{name}"):
        StemSpec.model_validate({"layers": [{**CONV, "act": {"kind": "elu", name: value}}]})
