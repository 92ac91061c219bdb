"""Diagrams: whole, legible and true, whatever the stem."""

from __future__ import annotations

import itertools
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Literal, NamedTuple
from xml.etree import ElementTree

import pytest
from conftest import REPOSITORY
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from layer_lists import FACTS, convert
from strategies import layer_lists

import stemlab
from stemlab import zoo
from stemlab.drawing import diagram, style
from stemlab.drawing.blocks import runs
from stemlab.drawing.text import fit, shares, width
from stemlab.spec import StemSpec
from stemlab.spec.layers import Counts, LayerSpec, ParallelLayer, Shape, ShapeError, follow

SVG = "{http://www.w3.org/2000/svg}"
DIM = 24


# Stems.


def published(name: str):
    channels, height, width = FACTS[name]["measured_at"]
    return convert(FACTS[name]["layers"]).trace(height, width, 1, channels)


_keeping = st.sampled_from(
    [
        {"op": "conv", "channels": DIM, "kernel": 3, "norm": "batch", "act": "relu"},
        {"op": "conv", "channels": DIM, "kernel": [1, 5], "groups": "depthwise", "bias": True},
        {"op": "norm", "kind": "layer"},
        {"op": "act", "kind": "gelu"},
    ]
)


def _parallel(branches):
    lists = st.lists(st.lists(branches, max_size=2), min_size=2, max_size=4)
    merges = st.sampled_from(["sum", "mul"])
    return st.fixed_dictionaries({"op": st.just("parallel"), "merge": merges, "branches": lists})


blocks = st.recursive(_keeping, _parallel, max_leaves=6)
"""A layer, or branches nested in one another, that keep the shape of their input."""


@st.composite
def traces(draw):
    """A stem of the whole vocabulary, with branches and repetitions behind it."""
    layers = [*draw(layer_lists(DIM))["layers"]]
    for block in draw(st.lists(blocks, max_size=3)):
        layers += [block] * draw(st.sampled_from([1, 1, 2, 5]))
    if draw(st.booleans()):
        layers += [{"op": "parallel", "split": [8, 16], "branches": [[], [{"op": "act", "kind": "relu"}]]}]
    size = draw(st.sampled_from([(64, 64), (48, 96)]))
    try:
        return StemSpec.model_validate({"layers": layers}).trace(*size, DIM)
    except ShapeError:
        assume(False)


# What is in a picture.


class Area(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float
    what: str

    def inside(self, other: Area) -> bool:
        slack = 0.02  # places are written to hundredths
        return (
            self.left >= other.left - slack
            and self.top >= other.top - slack
            and self.right <= other.right + slack
            and self.bottom <= other.bottom + slack
        )

    def touches(self, other: Area) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def text_area(element) -> Area:
    """The area that a line of text takes at most."""
    size, bold = float(element.get("font-size")), element.get("font-weight") == "700"
    spans = element.findall(f"{SVG}tspan")
    pieces = [
        (element.text or "", bold),
        *((span.text, True) for span in spans),
        *((s.tail or "", bold) for s in spans),
    ]
    wide = sum(width(words, size, heavy) for words, heavy in pieces)
    left = float(element.get("x")) - (wide * {None: 0, "middle": 0.5, "end": 1}[element.get("text-anchor")])
    base = float(element.get("y"))
    return Area(left, base - 0.76 * size, left + wide, base + 0.22 * size, "".join(words for words, _ in pieces))


def rect_area(element) -> Area:
    x, y, w, h = (float(element.get(name, 0)) for name in ("x", "y", "width", "height"))
    return Area(x, y, x + w, y + h, "rect")


def texts(svg: str) -> list[str]:
    return ["".join(e.itertext()) for e in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def check_geometry(svg: str) -> None:
    root = ElementTree.fromstring(svg)
    _, _, wide, high = map(float, root.get("viewBox").split())
    whole = Area(0, 0, wide, high, "picture")
    areas = sorted(text_area(e) for e in root.iter(f"{SVG}text"))
    assert [a for a in (*areas, *map(rect_area, root.iter(f"{SVG}rect"))) if not a.inside(whole)] == []
    assert [(a, b) for a, b in itertools.combinations(areas, 2) if a.touches(b)] == []
    for group in root.iter(f"{SVG}g"):
        if group.get("class") == "layer":
            box = rect_area(group.find(f"{SVG}rect"))
            assert [a for a in map(text_area, group.iter(f"{SVG}text")) if not a.inside(box)] == []
    boxes = [rect_area(g.find(f"{SVG}rect")) for g in root.iter(f"{SVG}g") if g.get("class") == "layer"]
    assert [(a, b) for a, b in itertools.combinations(boxes, 2) if a.inside(b) or b.inside(a)] == []


def all_steps(trace):
    for step in trace:
        yield step
        if isinstance(step.layer, ParallelLayer):
            for branch in step.layer.traces(step.before, trace.dim):
                yield from all_steps(branch)


# Invariants.


@settings(max_examples=40)
@given(trace=traces(), title=st.text(max_size=80))
def test_every_picture_is_whole_and_legible(trace, title):
    svg = diagram(trace, title, title)
    check_geometry(svg)
    assert svg == diagram(trace, title, title)


@settings(max_examples=40)
@given(traces())
def test_every_layer_and_its_output_is_told(trace):
    tips = [e.text for e in ElementTree.fromstring(diagram(trace)).iter(f"{SVG}title")]
    for step in all_steps(trace):
        shape = "×".join(map(str, step.after))
        assert any(tip.startswith(f"{step.layer.op}: ") and f"→ {shape};" in tip for tip in tips), step
    shown = texts(diagram(trace))
    assert "×".join(map(str, trace.start)) in shown
    assert f"{trace.tokens} tokens × {trace.end.channels}" in shown


@settings(max_examples=40)
@given(traces())
def test_what_is_shown_adds_up(trace):
    blocks = [block for run in runs(trace) for block in run.blocks]
    assert Counts(*map(sum, zip(*(block.counts for block in blocks), strict=True))) == trace.counts
    assert sum(len(block.steps) * block.times for block in blocks) == len(trace)
    percents = [Decimal(m[1]) for t in texts(diagram(trace)) if (m := re.fullmatch(r"(\d+\.\d)%", t))]
    assert sum(percents) == (100 if trace.counts.flops else 0)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=60))
def test_shares_add_up_to_a_hundred(values):
    shown = shares(values)
    tenths = [0 if text in ("", "<0.1%") else round(10 * float(text[:-1])) for text in shown]
    assert sum(tenths) == (1000 if sum(values) else 0)
    for value, text, part in zip(values, shown, tenths, strict=True):
        assert (text == "") == (value == 0)
        assert not value or abs(part - 1000 * value / sum(values)) <= 1


@settings(max_examples=10)
@given(st.lists(traces(), min_size=2, max_size=4))
def test_stems_beside_each_other_do_not_meet(several):
    check_geometry(diagram(several, [f"stem {index}" for index in range(len(several))]))


@pytest.mark.parametrize("name", FACTS)
def test_published_stems(name):
    trace = published(name)
    svg = diagram(trace, name, FACTS[name]["id"])
    check_geometry(svg)
    assert f"{trace.tokens} tokens × {trace.end.channels}" in texts(svg)


@settings(max_examples=30)
@given(traces(), st.text(max_size=30))
def test_a_picture_needs_nothing_from_elsewhere(trace, title):
    root = ElementTree.fromstring(diagram(trace, title))
    assert {e.tag.removeprefix(SVG) for e in root.iter()} <= {
        *("svg", "title", "desc", "g", "rect", "path", "polygon", "circle", "text", "tspan")
    }
    names = {name for e in root.iter() for name in e.attrib}
    assert not any(name.endswith("href") or name.startswith("on") or name in ("src", "id") for name in names)
    assert not any("url(" in value for e in root.iter() for value in e.attrib.values())


# Looks.


def test_no_letter_is_wider_than_thought():
    """The widest of the fonts named, as matplotlib brings it."""
    import matplotlib
    from PIL import ImageFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for bold, name in ((False, "DejaVuSans.ttf"), (True, "DejaVuSans-Bold.ttf")):
        font = ImageFont.truetype(str(folder / name), 1000)
        letters = [*map(chr, range(32, 127)), *"×↓·‖…’"]
        assert [c for c in letters if font.getlength(c) > width(c, 1000, bold) + 1e-6] == []


@given(st.text(max_size=60), st.floats(0, 300), st.booleans())
def test_text_is_cut_to_its_room(words, room, bold):
    cut = fit(words, room, 10, bold)
    assert width(cut, 10, bold) <= max(room, width("…", 10, bold))
    assert cut == words or cut.endswith("…")


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize(
    ("text", "ground"),
    [
        *((style.INK, fill) for fill, _ in style.LOOKS.values()),
        *((colour, ground) for colour in (style.INK, style.SOFT) for ground in (*style.CARDS, style.PAPER)),
        (style.PAPER, style.INK),
    ],
)
def test_text_stands_out(text, ground):
    """WCAG 2.1, level AA for small text; luminance alone counts, as in a grey print."""
    light, dark = sorted((luminance(text), luminance(ground)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


# What repeats.

BLOCK = {
    "op": "parallel",
    "branches": [[], [{"op": "conv", "channels": 8, "kernel": 3, "norm": "batch", "act": "relu"}]],
}


def repeated(*layers):
    spec = StemSpec.model_validate({"layers": [{"op": "conv", "channels": 8, "kernel": 3}, *layers]})
    return spec.trace(32, 32, 8)


@pytest.mark.parametrize(
    ("layers", "times"),
    [
        ([BLOCK] * 5, [1, 5]),
        ([BLOCK, {"op": "act", "kind": "relu"}] * 3, [1, 3]),
        ([BLOCK, BLOCK, {"op": "norm", "kind": "layer"}], [1, 2, 1]),  # the norm hides no repetition
        ([{"op": "conv", "channels": 12, "kernel": 1}, {"op": "conv", "channels": 8, "kernel": 1}] * 4, [1, 4]),
        ([{"op": "conv", "channels": 8, "kernel": 1}] * 2, [1, 1, 1]),
    ],
)
def test_what_repeats_is_drawn_once(layers, times):
    trace = repeated(*layers)
    assert [run.times for run in runs(trace)] == times
    shown = texts(diagram(trace))
    assert [t for t in shown if re.fullmatch(r"×\d+", t)] == [f"×{n}" for n in times if n > 1]


def test_the_receptive_field_beside_a_repetition_is_that_of_its_end():
    trace = repeated(*[BLOCK] * 5)
    assert f"stride 1 · sees {trace.receptive_field[0]} px" in texts(diagram(trace))


# Layers of others, and titles of any kind.


class Mystery(LayerSpec):
    """A layer of some plug-in."""

    op: Literal["mystery"] = "mystery"
    words: str

    def describe(self) -> str:
        return self.words

    def build(self, before, after, dim):
        raise NotImplementedError


@settings(max_examples=30)
@given(st.text(max_size=200))
def test_layers_of_plug_ins_have_a_box(words):
    svg = diagram(follow([Mystery(words=words)], Shape(3, 16, 16), 8))
    check_geometry(svg)
    assert "mystery" in texts(svg)


def test_titles_are_words_and_no_markup():
    svg = diagram(published("fastvit_t8_train"), "<script>alert(1)</script> & \x00\ud800")
    assert "<script>alert(1)</script> &" in texts(svg)
    assert "<script" not in svg


def test_one_title_for_each_stem():
    trace = published("fastvit_t8_train")
    with pytest.raises(stemlab.SpecError, match="titles has 1 values for 2 stems"):
        diagram([trace, trace], ["one"])
    with pytest.raises(stemlab.SpecError, match="at least one stem"):
        stemlab.diagram()


# From Python.

MODEL = {"stem": {"patch": 8}, "body": {"dim": 32, "depth": 1, "heads": 2}, "image_size": 32, "classes": 5}


def test_whatever_names_a_stem_can_be_drawn(tmp_path):
    path = tmp_path / "model.json"
    path.write_text(json.dumps(MODEL))
    model = stemlab.load(MODEL)
    wanted = stemlab.diagram(MODEL, titles=["m"]).svg
    assert stemlab.diagram(path, titles=["m"]).svg == stemlab.diagram(model, titles=["m"]).svg == wanted
    assert "% of the model’s flops" in wanted
    alone = [stemlab.diagram(stem, dim=32, image_size=32).svg for stem in ({"patch": 8}, model.stem)]
    assert alone[0] == alone[1] == diagram(model.trace())
    entry = zoo.get("vit_c_1gf")
    assert stemlab.diagram(entry).svg == stemlab.diagram("vit_c_1gf").svg
    assert "192×14×14" in texts(stemlab.diagram("vit_c_1gf").svg)
    assert "192×28×28" in texts(stemlab.diagram("vit_c_1gf", image_size=448).svg)
    assert "256×14×14" in texts(stemlab.diagram("vit_c_1gf", dim=256).svg)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("vit_c_5gf", {}, "did you mean 'vit_c_4gf'"),
        ({"patch": 8}, {}, r"say how wide that is: diagram\(stem, dim=384\)"),
        ({"patch": 7}, {"dim": 8}, "does not fit an image of 30 pixels: patchify: a map of 30x30"),
        ({"pach": 7}, {}, "pach"),
    ],
)
def test_what_cannot_be_drawn(source, options, message):
    with pytest.raises(stemlab.SpecError, match=message):
        stemlab.diagram(source, image_size=30, **options)


def test_notebooks_show_stems():
    stem = stemlab.build_stem({"channels": [8, 16], "norm": "batch"}, dim=24, image_size=32)
    assert "64 tokens × 24" in texts(stem._repr_svg_())
    assert "vit_c_1gf" in texts(zoo.get("vit_c_1gf")._repr_svg_())
    drawn = stemlab.diagram("vit_c_1gf")
    assert drawn._repr_svg_() == drawn.svg


def test_a_picture_is_saved_whole(tmp_path):
    drawn = stemlab.diagram("vit_p_1gf")
    assert drawn.save(tmp_path / "a.svg").read_text(encoding="utf-8") == drawn.svg
    (tmp_path / "folder.svg").mkdir()
    for name, message in (
        ("a.png", "expected one that ends in .svg"),
        ("none/a.svg", "there is no folder"),
        ("a.svg/b.svg", "there is no folder"),
        ("folder.svg", "is a folder"),
    ):
        with pytest.raises(stemlab.SpecError, match=message):
            drawn.save(tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.svg", "folder.svg"]


def test_the_example_of_the_docs_is_as_drawn_today():
    example = (REPOSITORY / "docs" / "diagram.svg").read_text(encoding="utf-8")
    assert example == stemlab.diagram("vit_p_4gf", "vit_c_4gf").svg


# The command line.


def test_build_draws(cli, tmp_path):
    (tmp_path / "model.json").write_text(json.dumps(MODEL))
    ran = cli("build", "model.json", "--diagram", "out.svg", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["diagram"] == "out.svg"
    assert {"model.json", "8×8 patchify, 32"} <= set(texts((tmp_path / "out.svg").read_text(encoding="utf-8")))


def test_cost_compares(cli, tmp_path):
    ran = cli("cost", "vit_p_4gf", "vit_c_4gf", "--diagram", "two.svg")
    assert ran.returncode == 0, ran.stderr
    assert "wrote two.svg" in ran.stdout
    svg = (tmp_path / "two.svg").read_text(encoding="utf-8")
    check_geometry(svg)
    assert {"vit_p_4gf", "vit_c_4gf", "16×16 patchify, 384", "3×3 conv, 48"} <= set(texts(svg))


@pytest.mark.parametrize(
    ("name", "message"), [("a.png", "expected one that ends in .svg"), ("none/a.svg", "there is no folder none")]
)
def test_a_bad_path_is_refused_before_any_work(cli, tmp_path, name, message):
    for command in ("build", "cost"):
        ran = cli(command, "vit_p_1gf", "--diagram", name)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert message in ran.stderr
        assert "Traceback" not in ran.stderr
    assert list(tmp_path.iterdir()) == []
