"""Relations between the fields of a study: their language, where they hold, and what is said where they cannot be."""

from __future__ import annotations

import builtins
import json
import math
import operator
import re
from types import SimpleNamespace
from typing import get_args

import pytest
from conftest import CONV3X3, REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bad_input import STUDY, call, lines_named, refused, snapshot  # noqa: F401 (call is a fixture)

from stemlab import space
from stemlab.errors import InfeasibleError, SpecError
from stemlab.running import load_ablation, load_search
from stemlab.spec import SearchSpec
from stemlab.spec.arithmetic import FUNCTIONS, Unworkable
from stemlab.spec.files import Document, parse, validate
from stemlab.spec.quantity import Quantity
from stemlab.spec.relation import read_relation
from stemlab.spec.schema import json_schema

# The language, against Python's own reading of it.

FIELDS = {
    ("model", "body", "dim"): 48,
    ("model", "body", "qkv_bias"): True,
    ("model", "stem", "channels"): [8, 16, 16],
    ("model", "stem", "channels", -1): 16,
    ("train", "lr"): 0.5,
    ("train", "epochs"): 3,
    ("train", "optimizer"): "adamw",
    ("stem_params",): 1000,
    ("match_error",): 0.0,
}
NAMES = {
    "model": SimpleNamespace(body=SimpleNamespace(dim=48, qkv_bias=True), stem=SimpleNamespace(channels=[8, 16, 16])),
    "train": SimpleNamespace(lr=0.5, epochs=3, optimizer="adamw"),
    "stem_params": 1000,
    "match_error": 0.0,
    "prod": math.prod,
    "increasing": lambda items: sorted(items) == items,
    "decreasing": lambda items: sorted(items, reverse=True) == items,
    "first": operator.itemgetter(0),
    "last": operator.itemgetter(-1),
    **{name: getattr(builtins, name) for name in ("sum", "min", "max", "len", "abs", "all", "any")},
}


def lookup(path):
    if path not in FIELDS:
        raise Unworkable(f"there is no {path}")
    return FIELDS[path]


NUMBERS = ["model.body.dim", "model.stem.channels[-1]", "train.lr", "train.epochs", "stem_params", "match_error"]


def numbers(inner):
    lists = st.one_of(
        st.just("model.stem.channels"), st.lists(inner, min_size=1, max_size=3).map(lambda v: f"[{', '.join(v)}]")
    )
    return st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(lambda v: f"({' '.join(v)})"),
        st.tuples(st.sampled_from(["prod", "sum", "min", "max", "len", "first", "last"]), lists).map(
            lambda v: f"{v[0]}({v[1]})"
        ),
        inner.map(lambda v: f"abs({v})"),
        inner.map(lambda v: f"(-{v})"),
        st.tuples(inner, st.integers(-2, 2)).map(lambda v: f"({v[0]} ** {v[1]})"),
    )


NUMBER = st.recursive(
    st.one_of(st.sampled_from(NUMBERS), st.integers(0, 9).map(str), st.sampled_from(["0.25", "1e3"])),
    numbers,
    max_leaves=6,
)
SIGN = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
COMPARISON = st.one_of(
    st.tuples(NUMBER, SIGN, NUMBER).map(" ".join),
    st.tuples(NUMBER, SIGN, NUMBER, SIGN, NUMBER).map(" ".join),
    st.tuples(NUMBER, st.sampled_from(["in", "not in"]), NUMBER).map(lambda v: f"{v[0]} {v[1]} [{v[2]}, 16]"),
    st.sampled_from(
        [
            "train.optimizer == 'adamw'",
            "train.optimizer in ('sgd', 'lamb')",
            "model.body.qkv_bias",
            "increasing(model.stem.channels)",
            "decreasing([3, model.body.dim])",
            "model.stem.channels != [8, 16]",
        ]
    ),
)
CONDITION = st.recursive(
    COMPARISON,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda v: f"({' '.join(v)})"),
        inner.map(lambda v: f"not ({v})"),
        st.lists(inner, min_size=1, max_size=3).map(lambda v: f"all([{', '.join(v)}])"),
        st.lists(inner, min_size=1, max_size=3).map(lambda v: f"any([{', '.join(v)}])"),
    ),
    max_leaves=4,
)


def spec_of(*relations) -> SearchSpec:
    """Return the tiny study with these relations."""
    data = {
        "name": "tiny",
        "model": {
            "stem": {"channels": [8, 16, 32], "strides": 2},
            "body": {"dim": 48, "depth": 2, "heads": 3},
        },
        "data": {"name": "digits", "image_size": 32},
        "relations": list(relations),
    }
    return validate(SearchSpec, Document(data, "<dict>"))


@settings(max_examples=400)
@given(CONDITION)
def test_a_relation_means_what_python_takes_it_for(text):
    text = f"train.epochs == 3 and ({text})"
    (kept,) = spec_of(text).relations
    assert kept == text
    objection = read_relation(text).objection(lookup)
    try:
        expected = eval(text, {"__builtins__": {}}, NAMES)
    except (ZeroDivisionError, OverflowError):
        assert "cannot be worked out" in objection
    else:
        if isinstance(expected, bool) and objection and "cannot be worked out" in objection:
            # Python also orders and compares what is no real number, or very large.
            assert "no real number" in objection or "too large" in objection
        else:
            assert (objection is None) == expected
            assert expected or "does not hold: " in objection


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("prod(model.stem.channels) == 16", "2048 == 16"),
        ("train.epochs < 2 < model.body.dim", "3 < 2"),
        ("train.epochs == 3 and train.lr > 0.5", "0.5 > 0.5"),
        ("train.epochs == 4 or train.lr > 0.6", "3 == 4 or 0.5 > 0.6"),
        ("not train.epochs == 3", "not 3 == 3"),
        ("decreasing(model.stem.channels)", "decreasing([8, 16, 16])"),
        ("train.optimizer in ['sgd', 'lamb']", "'adamw' in ['sgd', 'lamb']"),
        ("stem_params <= 0.1 * model.body.dim", "1000 <= 4.8"),
        ("has(model.stem.patch)", "has(model.stem.patch)"),
        ("not (train.lr < 1 and has(train.lr))", "not (train.lr < 1 and has(train.lr))"),
    ],
)
def test_what_does_not_hold_is_shown_with_its_values(text, shown):
    assert read_relation(text).objection(lookup) == f"{text} does not hold: {shown}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model.stem.patch == 8", "there is no"),
        ("train.optimizer < 3", "< needs a number, got 'adamw'"),
        ("prod(train.lr) == 1", "prod needs a list, got 0.5"),
        ("min([]) < train.lr", "min needs a list that is not empty"),
        ("train.lr in 0.5", "in needs a list, got 0.5"),
        ("train.lr / 0 == 1", "/ divides by zero"),
        ("train.lr and train.epochs == 3", "and, or and not need true or false, got 0.5"),
        ("9 ** 9 ** 9 > train.lr", "a number is too large"),
        ("2 ** 99999999999999999999 > train.lr", "a number is too large"),
        ("1e300 * 1e300 > train.lr", "no real number"),
        ("(-8) ** train.lr == 1", "no real number"),
        ("model.body.qkv_bias + 1 == 2", "+ needs a number, got True"),
        ("'a' * train.epochs == 'aaa'", "* needs a number, got 'a'"),
        ("[1] * train.epochs == [1]", "* needs a number, got [1]"),
        ("'%s' % train.epochs == '3'", "% needs a number, got '%s'"),
    ],
)
def test_what_has_no_value_says_why(text, reason):
    objection = read_relation(text).objection(lookup)
    assert objection.startswith(f"{text} cannot be worked out: ")
    assert reason in objection


HOSTILE = [
    "__import__('os').system('touch hacked')",
    "eval('1')",
    "model.__class__.__mro__[1].__subclasses__() == 3",
    "(lambda: model.body.dim)() == 3",
    "[x for x in model.stem.channels] == [1]",
    "model.stem.channels[0:2] == [1]",
    "model.stem.channels[train.epochs] == 3",
    "model.stem.channels[True] == 3",
    "model.body['dim'] == 3",
    "(model.body.dim := 3) == 3",
    "f'{model.body.dim}' == '48'",
    "model.body.dim is 48",
    "model.body.dim if model.body.dim else 3",
    "model.body.dim == 3j",
    "model.body.dim == 1e999",
    "model.body.dim == b'x'",
    "model.body.dim == ...",
    "~model.body.dim == 3",
    "model.body.dim << 99999 == 3",
    "model.body.dim @ 3 == 3",
    "max(*model.stem.channels) == 3",
    "max(model.stem.channels, key=abs) == 3",
    "prod(model.stem.channels, 3) == 3",
    "min() == 3",
    "abs == 3",
    "has(3) == true",
    "has(stem_params) == true",
    "model == 3",
    "stem_params.real == 3",
    "model.body.dim",
    "model.body.dim + 3",
    "[model.body.dim]",
    "1 < 2",
    "",
    "   ",
    "model.body.dim = 3",
    "model.body.dim == 3; import os",
    "model.body.dim == 3 #",
    "\x00",
    "model.body.dim == \ud800",
    "(" * 300 + "model.body.dim" + ")" * 300 + " == 1",
    "-" * 900 + "model.body.dim == 1",
    "not " * 200 + "model.body.dim == 1",
    "model.body" + ".a" * 300 + " == 1",
    "model.body.dim == " + "9" * 5000,
    "model.body.dim == " + "9" * 900,
]
ALLOWED = {"model.body.dim", "model.body.dim == 3 #", "model.body.dim == " + "9" * 900}


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_refused_in_one_sentence(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if text in ALLOWED:
        assert read_relation(*spec_of(text).relations).objection(lookup) is not None
        return
    with pytest.raises(SpecError, match=r"^<dict>: relations\[0\]: ") as caught:
        spec_of(text)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@settings(max_examples=300)
@given(st.one_of(st.text(max_size=60), st.text("modelbdy.[]()0123456789+-*/%<>=' ,anotrinpdsum", max_size=60)))
def test_any_text_is_read_or_refused(text):
    try:
        (kept,) = spec_of(text).relations
    except SpecError:
        return
    objection = read_relation(kept).objection(lookup)
    assert objection is None or objection.startswith(kept)


@pytest.mark.parametrize("value", [3, True, {"a": 1}, ["x"]])
def test_a_relation_is_text(value):
    with pytest.raises(SpecError, match="expected a comparison as text"):
        spec_of(value)


# In a study.

OTHER = ["relations=['prod(model.stem.strides) == 16']", "constraints={}"]


def feasible(*changes) -> set[str]:
    candidates = load_search(CONV3X3, changes)
    return {json.dumps(candidate.point, sort_keys=True) for candidate in candidates.probe().feasible}


def stems(candidates) -> dict[str, dict]:
    """Return point -> the stem as it is filled."""
    return {
        json.dumps(point, sort_keys=True): space.fill(candidates.document.data, candidates.holes, point)["model"][
            "stem"
        ]
        for point in space.enumerate_points(candidates.holes)
    }


@pytest.mark.parametrize(
    ("relation", "holds"),
    [
        ("prod(model.stem.strides) == 8", lambda stem: "channels" in stem),
        ("model.stem.strides[0] == 2", lambda stem: stem.get("strides", [1]) == 2 or stem.get("strides", [1])[0] == 2),
        ("model.stem.patch == 8", lambda stem: "patch" in stem),
        (
            "not has(model.stem.channels) or len(model.stem.channels) == 4",
            lambda stem: "channels" not in stem or len(stem["channels"]) == 4,
        ),
        (
            "'relu' not in model.stem.act or 'batch' in model.stem.norm",
            lambda stem: "channels" in stem and (stem["act"] != "relu" or stem["norm"] == "batch"),
        ),
        ("train.epochs == 10 and train.batch_size == 64 and train.label_smoothing == 0", lambda stem: True),
    ],
)
def test_the_points_left_are_those_where_it_holds(relation, holds):
    free = feasible("constraints={}")
    wanted = {point for point, stem in stems(load_search(CONV3X3)).items() if point in free and holds(stem)}
    assert feasible("constraints={}", f"relations=[{json.dumps(relation)}]") == wanted != set()


def test_costs_are_those_of_the_matched_model():
    changes = ["constraints={}", "relations=['stem_flops <= 0.2 * (stem_flops + body_flops)', 'match_error < 0.004']"]
    bounds = ["constraints={stem_flops_share: {max: 0.2}, match_error: {max: 0.0039999}}"]
    assert feasible(*changes) == feasible(*bounds) != feasible("constraints={}")


def test_what_needs_no_match_is_checked_before_it(monkeypatch):
    from stemlab import candidate

    matched = []
    original = candidate.match
    monkeypatch.setattr(candidate, "match", lambda model: matched.append(model) or original(model))
    load_search(CONV3X3, ["relations=['model.stem.patch == 8', 'stem_params > 0']"]).probe()
    assert len(matched) == 1


def test_a_field_that_only_some_options_have_leaves_out_the_others():
    probe = load_search(CONV3X3, OTHER).probe()
    assert not probe.feasible
    said = {text for _, text in probe.objections}
    assert said == {
        "prod(model.stem.strides) == 16 cannot be worked out: there is no model.stem.strides where the holes are "
        "filled so",
        "prod(model.stem.strides) == 16 does not hold: 8 == 16",
    }
    assert {path for path, _ in probe.objections} == {("relations", 0)}


def test_a_study_without_relations_is_the_one_it_was():
    assert "relations" not in load_search(CONV3X3).study.canonical()
    assert load_search(CONV3X3, ["relations="]).study == load_search(CONV3X3).study


def test_relations_survive_the_study_file():
    study = load_search(CONV3X3, ["relations=['  train.lr < 1 ', 'train.epochs\n  > 1']"]).study
    assert study.relations == ("train.lr < 1", "train.epochs > 1")
    assert load_search(study.canonical()).study == study


def test_the_schema_has_texts():
    items = json_schema("search")["properties"]["relations"]["anyOf"][0]["items"]
    assert items["type"] == "string"
    assert json_schema("ablation")["properties"]["relations"]["anyOf"][0]["items"] == items


def test_every_quantity_has_a_value():
    candidates = load_search(CONV3X3, ["constraints={}", f"relations=[{' >= 0, '.join(get_args(Quantity))} >= 0]"])
    assert candidates.study.relations == tuple(f"{name} >= 0" for name in get_args(Quantity))
    assert len(candidates.probe().feasible) == len(feasible("constraints={}"))


ABLATION = {
    "name": "arms",
    "model": {
        "stem": {"choice": {"two": {"channels": [8, 16], "strides": [4, 2]}, "one": {"channels": [16], "strides": 4}}},
        "body": {"dim": 48, "depth": 2, "heads": 3},
    },
    "data": {"name": "digits", "image_size": 32},
    "ablate": {"seeds": [0]},
}


def test_an_arm_for_which_it_does_not_hold_cannot_be_had():
    assert len(load_ablation({**ABLATION, "relations": ["prod(model.stem.strides) >= 4"]}).cells) == 2
    plan = load_ablation({**ABLATION, "relations": ["train.lr < 1", "prod(model.stem.strides) == 8"]})
    with pytest.raises(InfeasibleError) as caught:
        _ = plan.cells
    assert str(caught.value) == (
        "<dict>: relations[1]: the arm “one” cannot be had: prod(model.stem.strides) == 8 does not hold: 4 == 8"
    )


def test_a_dry_run_shows_the_commonest_objection(call, tmp_path):  # noqa: F811
    relation = "relations:\n- model.stem.channels[-1] < model.body.dim\n- sum(model.stem.channels) <= 60\n"
    (tmp_path / "study.yaml").write_text(STUDY + relation)
    result = call("search", "study.yaml", "--dry-run")
    assert result.code == 0
    said = "model.stem.channels[-1] < model.body.dim does not hold: 64 < 48"
    assert f"commonest objection: relations[0]: {said}" in result.out
    assert "1 of 2 tried are feasible" in result.out


# Bad input: the message stands at the line of the item.


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ("model.stem.chanels[-1] < 3", ("there is no model.stem.chanels[-1]", "did you mean 'model.stem.channels'?")),
        ("model.stem.patch == 8", ("there is no model.stem.patch",)),
        ("model.stem.channels[7] == 8", ("there is no model.stem.channels[7]",)),
        ("train.epoch < 3", ("there is no train.epoch", "did you mean 'train.epochs'?")),
        ("epochs < 3", ("unknown name 'epochs'", "did you mean 'train.epochs'?")),
        ("stem_parms < 3", ("unknown name 'stem_parms'", "did you mean 'stem_params'?")),
        ("stem.channels[0] == 8", ("unknown name 'stem'", "did you mean 'model.stem'?")),
        ("product(model.stem.channels) == 8", ("unknown function 'product'", "did you mean 'prod'?")),
        ("model.body.dim = 48", ("is not understood", "prod(model.stem.strides) == 16")),
        ("model.body.dim * 2", ("compares nothing",)),
        ("8", ("expected a comparison as text", "got 8")),
        ("model.body.dim == 64", ("model.body.dim == 64 does not hold: 48 == 64", "none of 2 points")),
        ("body_params < 3", ("body_params < 3 does not hold: ", "none of 2 points")),
    ],
)
def test_a_bad_relation_is_refused_at_its_line(call, tmp_path, item, says):  # noqa: F811
    text = f"{STUDY}relations:\n- train.lr < 1\n- {item}\n"
    (tmp_path / "bad.yaml").write_text(text)
    before = snapshot(tmp_path)
    result = call("search", "bad.yaml", "--out", "out")
    refused(result, *says)
    assert result.err.startswith(f"error: bad.yaml:{len(text.splitlines())}: relations[1]: ")
    assert lines_named(result, "bad.yaml") == [len(text.splitlines())]
    assert snapshot(tmp_path) == before
    assert call("search", "bad.yaml", "--dry-run") == result


def test_functions_are_those_of_the_documentation():
    text = (REPOSITORY / "docs" / "relations_and_screens.md").read_text()
    assert [name for name in (*FUNCTIONS, "has") if f"`{name}(" not in text] == []


def test_the_example_of_the_documentation_is_read():
    text = (REPOSITORY / "docs" / "relations_and_screens.md").read_text()
    block = re.search(r"```yaml\n(relations:.*?)```", text, re.DOTALL)[1]
    relations = parse(block, "docs").data["relations"]
    assert len(feasible("constraints={}", f"relations={json.dumps(relations)}")) > 50
