"""Hypothesis strategies for layers: each op as a user may write it, and lists of them that fit each other.

Branches that must end alike are made of layers that turn n positions into ceil(n / stride), however they get there.
"""

from __future__ import annotations

import math

from hypothesis import strategies as st

NORMS = ("batch", "layer", "group", "instance", "rms")
PLAIN_ACTS = (
    "relu", "gelu", "gelu_tanh", "silu", "hardswish", "relu6", "mish", "tanh", "sigmoid", "hardsigmoid", "quick_gelu",
    "selu", "softplus",
)  # fmt: skip
SLOPED_ACTS = ("leaky_relu", "prelu")
ALPHA_ACTS = ("elu", "celu")
ORDERS = ("c h w", "c w h", "h c w", "h w c", "w c h", "w h c")
MOST_STRIDE = 16
MOST_CHANNELS = 96
"""A space-to-depth may not make more."""

numbers = st.floats(-4, 4, allow_nan=False).map(lambda x: round(x, 3) + 0.0)  # + 0.0: no negative zero
booleans = st.booleans()


def pairs(low: int, high: int):
    """One number, or [height, width]."""
    sizes = st.integers(low, high)
    return sizes | st.lists(sizes, min_size=2, max_size=2)


def optional(**fields):
    """A mapping in which each field may be missing."""
    return st.fixed_dictionaries({}, optional=fields)


def divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def both(size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def as_layer(op: str, written):
    return {"op": op, **(written if isinstance(written, dict) else {"kind": written})}


def widths(channels: int, dim: int):
    """A number of channels as people write it, for a body of width `dim`."""
    forms = [channels, *([f"dim/{dim // channels}"] if dim % channels == 0 else []), *["dim"] * (channels == dim)]
    return st.sampled_from(forms)


@st.composite
def norms(draw, channels: int = 24, kinds: tuple[str, ...] = NORMS):
    """A norm as it stands behind a convolution: its name, or a mapping."""
    kind = draw(st.sampled_from(kinds))
    fields = draw(optional(eps=st.sampled_from([1e-3, 1e-5, 1e-6]), affine=st.sampled_from([True, False, "scale"])))
    if kind == "group":
        return {"kind": kind, "groups": draw(st.sampled_from(divisors(channels))), **fields}
    return draw(st.sampled_from([kind, {"kind": kind, **fields}]))


@st.composite
def acts(draw):
    """An activation as it stands behind a convolution: its name, or a mapping."""
    kind = draw(st.sampled_from((*PLAIN_ACTS, *SLOPED_ACTS, *ALPHA_ACTS, "scaled_relu")))
    own = {}
    if kind == "scaled_relu":
        own = {"scale": numbers, "shift": numbers, "learn": booleans}
    elif kind in SLOPED_ACTS:
        own = {"negative_slope": numbers}
    elif kind in ALPHA_ACTS:
        own = {"alpha": st.sampled_from([0.5, 1, 1.5])}
    fields = draw(optional(**own, gain=st.sampled_from([1, 1.7, 0.5])))
    return draw(st.sampled_from([kind, {"kind": kind, **fields}])) if not fields else {"kind": kind, **fields}


def strides(room: int):
    """Strides that keep the total within `room`, in each direction."""
    return st.sampled_from([s for s in (1, 2, [1, 2], [2, 1], 3, 4) if max(both(s)) <= room])


paddings = st.one_of(
    st.sampled_from(["same", "tf_same"]),
    st.integers(0, 2),
    st.lists(st.integers(0, 2), min_size=2, max_size=2),
    st.lists(st.integers(0, 3), min_size=4, max_size=4),
)
keeping = st.sampled_from(["same", "tf_same"])
"""Paddings under which a stride alone decides the size."""

standardizes = booleans | st.one_of(
    optional(eps=st.sampled_from([1e-6, 1e-3]), gain=st.just(False)),
    st.fixed_dictionaries({"gain": st.just(True)}, optional={"gamma": st.sampled_from([0.5, 1.0, 1.7])}),
)


@st.composite
def convs(draw, before: int, after: int | str, width: int, room: int = MOST_STRIDE, stride=None):
    """A convolution from `before` channels to `after`, which is `width` channels wide; with `stride`, that one."""
    groups = [*divisors(math.gcd(before, width)), *(["depthwise"] if width % before == 0 else [])]
    layer = {
        "op": "conv",
        "channels": after,
        "kernel": draw(pairs(1, 5)),
        "stride": draw(strides(room)) if stride is None else stride,
        **draw(
            optional(
                padding=paddings if stride is None else keeping,
                dilation=pairs(1, 2),
                groups=st.sampled_from(groups),
                bias=booleans,
                norm=norms(width) | st.just("none"),
                act=acts() | st.just("none"),
                order=st.sampled_from(["conv-norm-act", "conv-act-norm"]),
            )
        ),
    }
    groups = layer.get("groups", 1)
    weights = math.prod(both(layer["kernel"])) * (1 if groups == "depthwise" else before // groups)
    # A filter of one weight has no deviation to divide by.
    return {**layer, **draw(optional(standardize=standardizes))} if weights > 1 else layer


@st.composite
def pools(draw, room: int = MOST_STRIDE):
    kind = draw(st.sampled_from(["max", "avg"]))
    kernel = draw(pairs(1, min(3, room)))
    halves = [size // 2 for size in both(kernel)]
    equal = draw(booleans)
    per_side = [halves[1], halves[1], halves[0], halves[0]]
    fields = {
        "stride": strides(room),
        "padding": st.integers(0, min(halves)) | st.tuples(*(st.integers(0, half) for half in halves)).map(list)
        if equal
        else st.sampled_from(["same", "tf_same"]) | st.tuples(*(st.integers(0, h) for h in per_side)).map(list),
    }
    if equal:
        fields["ceil"] = booleans
    if kind == "avg":
        fields["count_include_pad"] = booleans
    return {"op": "pool", "kind": kind, "kernel": kernel, **draw(optional(**fields))}


@st.composite
def patchifies(draw, after: int | str, room: int = MOST_STRIDE):
    return {
        "op": "patchify",
        "patch": draw(pairs(1, min(4, room))),
        "channels": after,
        **draw(optional(bias=booleans)),
    }


def spaces_to_depth(channels: int, room: int):
    blocks = [
        b for b in (2, [1, 2], [2, 1], 3) if max(both(b)) <= room and channels * math.prod(both(b)) <= MOST_CHANNELS
    ]
    block = st.sampled_from([1, *blocks])
    return st.fixed_dictionaries(
        {"op": st.just("space_to_depth"), "block": block}, optional={"order": st.sampled_from(ORDERS)}
    )


pads = st.fixed_dictionaries(
    {"op": st.just("pad"), "padding": paddings.filter(lambda padding: not isinstance(padding, str))},
    optional={"value": numbers},
)


def gates(channels: int, dim: int):
    """Squeeze and excite: the whole map's mean, through a bottleneck, to a factor for each channel or for all."""
    hidden = st.fixed_dictionaries(
        {"op": st.just("conv"), "channels": st.sampled_from([1, 2, 4]), "kernel": st.just(1)},
        optional={"bias": booleans, "norm": norms(kinds=("batch", "layer", "rms")), "act": acts()},
    )
    last = st.fixed_dictionaries(
        {"op": st.just("conv"), "channels": st.just(1) | widths(channels, dim), "kernel": st.just(1)},
        optional={"bias": booleans, "act": st.sampled_from(["sigmoid", "hardsigmoid"])},
    )
    return st.builds(
        lambda middle, end: [{"op": "pool", "kind": "global"}, *middle, *end],
        st.lists(hidden, max_size=1),
        st.builds(list, st.tuples(last)),
    )


@st.composite
def branches(draw, before: int, width: int, stride, dim: int, depth: int):
    """Layers that make `width` channels of `before`, and ceil(n / stride) positions of n."""
    found = []
    first = draw(st.sampled_from(["", "", "norm", "act", *["parallel"] * (depth > 1)]))
    if first == "norm":
        found.append(as_layer("norm", draw(norms(before))))
    elif first == "act":
        found.append(as_layer("act", draw(acts())))
    elif first == "parallel":
        found.append(draw(parallels(before, before, 1, dim, depth - 1)))
    ways = ["conv", "conv", "pool", "pad"]
    if both(stride) != (1, 1):
        ways += ["patchify"]
        ways += ["space_to_depth"] * (before * math.prod(both(stride)) <= MOST_CHANNELS)
    ways += ["nothing"] * (width == before and both(stride) == (1, 1))
    way = draw(st.sampled_from(ways))
    after = draw(widths(width, dim))
    if way == "conv":
        found.append(draw(convs(before, after, width, stride=stride)))
    elif way == "patchify":
        found.append({"op": "patchify", "patch": stride, "channels": after})
    elif way == "pad":
        kernel, left = draw(st.integers(1, 3)), draw(st.integers(0, 2))
        left = min(left, kernel - 1)
        found.append({"op": "pad", "padding": [left, kernel - 1 - left] * 2})
        found.append({"op": "conv", "channels": after, "kernel": kernel, "stride": stride, "padding": 0})
    elif way != "nothing":
        if way == "pool":
            kind, kernel = draw(st.sampled_from(["max", "avg"])), draw(pairs(1, 3))
            found.append({"op": "pool", "kind": kind, "kernel": kernel, "stride": stride, "padding": draw(keeping)})
        else:
            order = draw(st.sampled_from(ORDERS))
            found.append({"op": "space_to_depth", "block": stride, "order": order})
            before *= math.prod(both(stride))
        if width != before or draw(booleans):
            found.append(draw(convs(before, after, width, stride=1)))
    return found


def _parts(draw, channels: int, count: int) -> list[int]:
    """Return `count` positive numbers that make `channels`."""
    parts = []
    for left in range(count - 1, 0, -1):
        parts.append(draw(st.integers(1, channels - sum(parts) - left)))
    return [*parts, channels - sum(parts)]


@st.composite
def parallels(draw, before: int, width: int, stride, dim: int, depth: int = 2):
    """Branches from `before` channels to `width`, at a total stride."""
    kinds = ["sum", *["concat"] * (width > 1), *["split", "split-sum"] * (before > 1 and width > 1)]
    if width == before and both(stride) == (1, 1):
        kinds += ["residual", "gate", *["norms"] * (before > 1)]
    kind = draw(st.sampled_from(kinds))
    count = draw(st.integers(2, min(3, before, width))) if kind in ("concat", "split", "split-sum") else 2
    if kind == "residual":
        other = draw(branches(before, width, stride, dim, depth))
        return {
            "op": "parallel",
            "branches": draw(st.permutations([[], other])),
            **draw(optional(merge=st.just("sum"))),
        }
    if kind == "gate":
        merge = draw(st.sampled_from(["mul", "mul", "sum"]))
        return {"op": "parallel", "branches": draw(st.permutations([[], draw(gates(width, dim))])), "merge": merge}
    ins = outs = None
    if kind in ("split", "split-sum", "norms"):
        ins = _parts(draw, before, count)
        equal = before % count == 0 and draw(booleans)
        ins = [before // count] * count if equal else ins
        split = {"split": "equal" if equal else [draw(widths(part, dim)) for part in ins]}
    if kind == "norms":
        found = [[as_layer("norm", name)] for name in ("instance", "batch")]
        return {"op": "parallel", "branches": found, **split, **draw(optional(merge=st.just("concat")))}
    if kind in ("concat", "split"):
        outs = _parts(draw, width, count)
    ends = zip(ins or [before] * count, outs or [width] * count, strict=True)
    found = [draw(branches(part, end, stride, dim, depth)) for part, end in ends]
    merge = {"split-sum": draw(st.sampled_from(["sum", "mul"])), "split": "concat"}.get(kind, kind)
    return {"op": "parallel", "branches": found, "merge": merge, **(split if ins else {})}


@st.composite
def layer_lists(draw, dim: int, in_channels: int = 3):
    """`{layers: [...]}` of the whole vocabulary, ending with `dim` channels."""
    layers, channels, room = [], in_channels, MOST_STRIDE
    middle = ["conv", "conv", "norm", "act", "pool", "patchify", "parallel", "parallel", "space_to_depth", "pad"]
    ops = draw(st.lists(st.sampled_from(middle), max_size=3))
    last = len(ops)
    ops += [draw(st.sampled_from(["conv", "patchify", "parallel"]))]
    ops += draw(st.lists(st.sampled_from(["norm", "act"]), max_size=1))
    for index, op in enumerate(ops):
        width = dim if index == last else draw(st.sampled_from([4, 6, 12, 24]))
        after = draw(widths(width, dim))
        stride = 1
        if op == "conv":
            layer = draw(convs(channels, after, width, room))
        elif op == "patchify":
            layer = draw(patchifies(after, room))
        elif op == "parallel":
            # Blocks that keep the width are the commonest: residual ones, gates.
            width = dim if index == last else draw(st.sampled_from([channels, width]))
            stride = draw(strides(room)) if width != channels else 1
            layer = draw(parallels(channels, width, stride, dim))
        elif op == "space_to_depth":
            layer = draw(spaces_to_depth(channels, room))
            width = channels * math.prod(both(layer["block"]))
        else:
            width = channels
            layer = draw(
                {
                    "norm": norms(channels).map(lambda n: as_layer("norm", n)),
                    "act": acts().map(lambda a: as_layer("act", a)),
                    "pool": pools(room),
                    "pad": pads,
                }[op]
            )
        steps = [layer[name] for name in ("patch", "block", "stride") if name in layer]
        room //= max(both(steps[0] if steps else layer["kernel"] if op == "pool" else stride))
        channels = width
        layers.append(layer)
    return {"layers": layers}
