"""Specs: one canonical form and digest, whatever way a thing is written."""

from __future__ import annotations

import json
import re
import warnings

import pytest
from conftest import CONV3X3
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from strategies import body_documents, columnar_stems, model_documents, models, stem_documents, study_documents
from strategies_layers import acts, convs, layer_lists, norms, pools

import stemlab
from stemlab import BodySpec, DataSpec, ModelSpec, SearchSpec, SpecError, StemSpec, TrainSpec, published, zoo
from stemlab.spec import ActLayer, ConvLayer, NormLayer, PoolLayer
from stemlab.spec.files import dump_json, dump_yaml, parse, read, validate
from stemlab.spec.schema import json_schema

pytestmark = pytest.mark.filterwarnings("error")

stems = stem_documents(24).map(StemSpec.model_validate)


def shuffled(data):
    """The same document with the keys of every mapping in reverse order."""
    if isinstance(data, dict):
        return {key: shuffled(data[key]) for key in reversed(data)}
    return [shuffled(item) for item in data] if isinstance(data, list) else data


# Canonical form.


@given(models(match=None))
@settings(max_examples=150)
def test_the_canonical_form_gives_the_spec_back(spec):
    for text, name in ((dump_json(spec.canonical()), "x.json"), (dump_yaml(spec.canonical()), "x.yaml")):
        again = validate(ModelSpec, parse(text, name))
        assert again == spec
        assert again.digest == spec.digest
        assert again.canonical() == spec.canonical()


@given(models(match=None))
@settings(max_examples=20)
def test_files_give_the_spec_back(tmp_path_factory, spec):
    for name, dump in (("spec.json", dump_json), ("spec.yaml", dump_yaml)):
        path = tmp_path_factory.mktemp("spec") / name
        path.write_text(dump(spec.canonical()))
        assert stemlab.load(path) == spec


@given(study_documents())
@settings(max_examples=50)
def test_a_study_survives_its_own_file(study):
    spec = validate(SearchSpec, parse(dump_json(study), "x.json"))
    assert validate(SearchSpec, parse(dump_yaml(spec.canonical()), "x.yaml")) == spec


@pytest.mark.parametrize("name", ["conv3x3", "1e3", "08", "010", "true-ish", "0x1F", "1.5", "1_000", "12"])
def test_any_name_survives_yaml(name):
    assert parse(dump_yaml({"name": name}), "x.yaml").data == {"name": name}


@given(norms(24).map(NormLayer.model_validate))
def test_a_norm_round_trips(layer):
    assert NormLayer.model_validate(layer.canonical()) == layer


@given(acts().map(ActLayer.model_validate))
def test_an_activation_round_trips(layer):
    assert ActLayer.model_validate(layer.canonical()) == layer


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (NormLayer, {"kind": "group", "groups": None}),
        (NormLayer, {"kind": "batch", "groups": None}),
        (ActLayer, {"kind": "scaled_relu", "scale": None, "shift": None, "learn": None}),
        (ActLayer, {"kind": "prelu", "negative_slope": None}),
        (PoolLayer, {"kind": "avg", "kernel": 2, "count_include_pad": None}),
        (ConvLayer, {"channels": 4, "kernel": 3, "norm": None, "act": None, "order": None}),
    ],
)
def test_null_means_the_default(kind, data):
    written = kind.model_validate(data)
    assert written == kind.model_validate({k: v for k, v in data.items() if v is not None})
    assert kind.model_validate(written.canonical()) == written


# Digests.


@given(model_documents(match=None))
@settings(max_examples=60)
def test_key_order_does_not_matter(document):
    assert ModelSpec.model_validate(shuffled(document)).digest == ModelSpec.model_validate(document).digest


@given(convs(12, 24, 24))
def test_norm_and_act_are_the_same_inside_a_convolution_and_behind_it(document):
    conv = {key: value for key, value in document.items() if key not in ("norm", "act", "order")}
    norm, act = document.get("norm", "none"), document.get("act", "none")
    behind = [
        {"op": op, **(written if isinstance(written, dict) else {"kind": written})}
        for op, written in (("norm", norm), ("act", act))
        if written != "none"
    ]
    if document.get("order") == "conv-act-norm":
        behind.reverse()
    inside, apart = (StemSpec.model_validate({"layers": layers}) for layers in ([document], [conv, *behind]))
    assert inside == apart
    assert inside.digest == apart.digest


@given(columnar_stems())
@settings(max_examples=100)
def test_columns_are_short_for_layers(columns):
    given_ = {"kernels": 3, "strides": 2, "paddings": "same", "norm": "none", "act": "none", **columns}
    number = len(given_["channels"])

    def column(name):
        return given_[name] if isinstance(given_[name], list) else [given_[name]] * number

    layers = [
        {
            "op": "conv",
            "channels": channels,
            "kernel": kernel,
            "stride": stride,
            "padding": padding,
            "norm": norm,
            "act": act,
            "bias": given_.get("bias", False),
            "order": given_.get("order", "conv-norm-act"),
        }
        for channels, kernel, stride, padding, norm, act in zip(
            given_["channels"], *map(column, ("kernels", "strides", "paddings", "norm", "act")), strict=True
        )
    ]
    layers.append({"op": "conv", "channels": "dim", "kernel": 1, "bias": True})
    assert StemSpec.model_validate(columns) == StemSpec.model_validate({"layers": layers})


def test_every_form_of_one_stem_has_one_digest():
    columns = {"channels": [48, 96, 192, 384], "kernels": 3, "strides": 2, "norm": "batch", "act": "relu"}
    lists = {**columns, "kernels": [3] * 4, "strides": [[2, 2]] * 4, "norm": [{"kind": "batch", "eps": 1e-5}] * 4}
    conv = {"op": "conv", "kernel": 3, "stride": 2, "padding": [1, 1, 1, 1], "norm": "batch", "act": {"kind": "relu"}}
    layers = [{**conv, "channels": c} for c in columns["channels"]]
    layers.append({"op": "conv", "channels": "dim", "kernel": [1, 1], "padding": 0, "bias": True, "norm": "none"})
    forms = ["vit_c_4gf", columns, lists, {"layers": layers}, zoo.get("vit_c_4gf").model.stem]
    assert len({StemSpec.model_validate(form).digest for form in forms}) == 1
    assert len({StemSpec.model_validate(form) for form in forms}) == 1


def test_a_patch_is_short_for_a_patchify_layer():
    long = {"layers": [{"op": "patchify", "patch": [16, 16], "channels": "dim", "bias": True}]}
    assert StemSpec.model_validate({"patch": 16}) == StemSpec.model_validate(long)


MAX2, AVG2 = ({"op": "pool", "kind": kind, "kernel": 2} for kind in ("max", "avg"))
CONV2, CONV3 = ({"op": "conv", "channels": 4, "kernel": kernel} for kernel in (2, 3))
SCALED = {"op": "act", "kind": "scaled_relu"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({**MAX2, "padding": 1}, {**MAX2, "stride": 2, "padding": [1, 1]}),
        (AVG2, {**AVG2, "kernel": [2, 2], "count_include_pad": True}),
        (CONV2, {**CONV2, "padding": [0, 1, 0, 1]}),
        ({**CONV3, "dilation": 2}, {**CONV3, "dilation": [2, 2], "padding": 2}),
        (SCALED, {**SCALED, "scale": 1, "shift": -0.0, "learn": True}),
        ({"op": "norm", "kind": "group"}, {"op": "norm", "kind": "group", "groups": 32, "eps": 1e-5}),
    ],
)
def test_equal_layers_have_equal_digests(first, second):
    one, other = (StemSpec.model_validate({"layers": [layer]}) for layer in (first, second))
    assert one == other
    assert one.digest == other.digest


def test_a_timm_body_is_its_fields():
    named = BodySpec.model_validate("vit_small_patch16_224")
    assert named == BodySpec(dim=384, depth=12, heads=6, mlp_ratio=4, class_token=True, pool="token")


@given(stems, stems)
def test_equal_digest_means_equal(one, other):
    assert (one.digest == other.digest) == (one == other)


PINNED = {
    "vit_p_1gf": "891f2ffe8e15d4c4",
    "vit_c_4gf": "413e2be6379fec6d",
    "odd": "89bb6e34fe15c092",
}
ODD = {
    "stem": {
        "layers": [
            {"op": "conv", "channels": 8, "kernel": [3, 2], "stride": [2, 1], "norm": {"kind": "group", "groups": 2}},
            {"op": "act", "kind": "scaled_relu", "scale": 0.5, "learn": False},
            {"op": "pool", "kind": "avg", "kernel": 2},
            {"op": "conv", "channels": 8, "kernel": 3, "padding": "tf_same", "groups": "depthwise", "act": "prelu"},
            {"op": "patchify", "patch": 2},
        ]
    },
    "body": {"dim": 24, "depth": 2, "heads": 3, "mlp_ratio": 2.5, "class_token": False},
    "match": {"reference": {"patch": 8}, "adjust": ["depth"], "tolerance": 0.1},
    "image_size": [32, 40],
    "classes": 10,
}


@pytest.mark.parametrize("name", PINNED)
def test_digests_are_what_they_were(name):
    """A change of the canonical form changes every digest, and with it every study's records: do it knowingly."""
    spec = stemlab.load(ODD if name == "odd" else name)
    assert spec.digest == PINNED[name]


def variants(data, path=()):
    """Yield the document with one value changed, for every value in it that can be another."""
    if isinstance(data, dict):
        for key, item in data.items():
            for name, changed in variants(item, (*path, key)):
                yield name, {**data, key: changed}
    elif isinstance(data, list):
        for index, item in enumerate(data):
            for name, changed in variants(item, (*path, index)):
                yield name, [*data[:index], changed, *data[index + 1 :]]
    else:
        words = ["batch", "layer", "group", "relu", "gelu", "leaky_relu", "max", "token", "avg", "params", "mlp", "dim"]
        words += ["sgd", "constant", "bf16"]
        others = {
            bool: lambda: [not data],
            int: lambda: sorted({data + 1, data * 2}),
            float: lambda: [data * 0.5, data + 1e-4],
            str: lambda: words,
        }[type(data)]()
        yield from ((path, other) for other in others if other != data)


def test_any_other_value_is_another_digest():
    spec = stemlab.load(ODD)
    digests, changed = {spec.digest}, set()
    for path, document in variants(spec.canonical()):
        try:
            other = ModelSpec.model_validate(document)
        except ValidationError:
            continue
        assert other != spec, path
        assert other.digest not in digests, path
        digests.add(other.digest)
        changed.add(path)
    fields = {path[-1] for path in changed if isinstance(path[-1], str)}
    assert fields >= {
        "channels", "kernel", "eps", "affine", "kind", "scale", "shift", "learn", "ceil", "count_include_pad",
        "negative_slope", "bias", "depth", "heads", "mlp_ratio", "qkv_bias", "class_token", "metric", "tolerance",
        "classes",
    }  # fmt: skip


@pytest.mark.parametrize("kind", [DataSpec, TrainSpec])
def test_any_other_recipe_is_another_digest(kind):
    spec = kind.model_validate({"name": "digits"} if kind is DataSpec else {"epochs": 4, "clip_grad": 1.0})
    found = set()
    for path, document in variants(spec.canonical()):
        try:
            found.add((path, kind.model_validate(document).digest))
        except ValidationError:
            continue
    assert len({digest for _, digest in found}) == len(found)
    assert spec.digest not in {digest for _, digest in found}
    assert {path[0] for path, _ in found} >= spec.canonical().keys() - {"name"}


# Frozen, closed, strict.


@given(models(match=True))
@settings(max_examples=10)
def test_specs_are_frozen(spec):
    for part in (spec, spec.stem, spec.stem.layers[0], spec.body, spec.match):
        for name in type(part).model_fields:
            with pytest.raises(ValidationError, match="frozen"):
                setattr(part, name, getattr(part, name))
    assert isinstance(spec.stem.layers, tuple)
    assert hash(spec) == hash(ModelSpec.model_validate(spec.canonical()))


@given(models(match=True), st.sampled_from([True, 0, -1, 2.5, "3", None, [], float("nan")]))
@settings(max_examples=40)
def test_numbers_are_not_coerced(spec, value):
    for name in ("depth", "dim", "heads"):
        with pytest.raises(ValidationError):
            BodySpec.model_validate({**spec.body.canonical(), name: value})
    with pytest.raises(ValidationError):
        spec.replace(classes=value)


@given(layer_lists(24))
@settings(max_examples=40)
def test_an_unknown_field_is_named_with_the_nearest_known_one(document):
    wrong = {**document["layers"][-1], "kernl": 3}
    with pytest.raises(ValidationError, match="unknown field 'kernl'"):
        StemSpec.model_validate({"layers": [wrong]})
    with pytest.raises(SpecError, match=re.escape("x.json:2: stem.chanels")):
        validate(ModelSpec, parse('{"stem":\n{"channels": [4], "chanels": 1}}', "x.json"))


@given(pools())
def test_pools_round_trip(document):
    layer = PoolLayer.model_validate(document)
    assert PoolLayer.model_validate(layer.canonical()) == layer
    assert layer.stride == PoolLayer.model_validate({**document, "stride": layer.stride}).stride


def test_the_canonical_form_is_made_without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert stemlab.load(ODD).canonical()["stem"]["layers"][0]["kernel"] == [3, 2]


# YAML.


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("1E5", 1e5), ("1.0e-3", 1e-3), (".5", 0.5), ("5.", 5.0), ("-2", -2), ("+2", 2), ("010", 10),
        ("08", 8), ("1:30", "1:30"), ("1_000", "1_000"), ("yes", "yes"), ("no", "no"), ("on", "on"), ("True", True),
        ("false", False), ("null", None), ("~", None), ("", None), ("'1'", "1"), ("2001-01-01", "2001-01-01"),
        ("!!float 3", 3.0), ("-.inf", float("-inf")), ("0.0", 0.0), ("-1.5e+3", -1500.0),
    ],
)  # fmt: skip
def test_yaml_scalars_are_those_of_yaml_1_2(text, value):
    found = parse(f"x: {text}", "x.yaml").data["x"]
    assert found == value
    assert type(found) is type(value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ).map(lambda data: {"x": data})
)
@settings(max_examples=150)
def test_any_json_survives_both_kinds_of_file(data):
    assert parse(dump_json(data), "x.json").data == data
    assert parse(dump_yaml(data), "x.yaml").data == data


# JSON Schema, read by a checker of what our schemas use of it (jsonschema is no dependency).

_TYPES = {
    "object": dict, "array": (list, tuple), "string": str, "integer": int, "number": (int, float),
    "boolean": bool, "null": type(None),
}  # fmt: skip
_KNOWN = {
    "$defs", "$ref", "$schema", "additionalProperties", "anyOf", "const", "default", "description", "discriminator",
    "enum", "exclusiveMaximum", "exclusiveMinimum", "items", "maxItems", "maxProperties", "maximum", "minItems",
    "minProperties", "minimum", "oneOf", "pattern", "prefixItems", "properties", "propertyNames", "required", "title",
    "type",
}  # fmt: skip


def accepts(schema, data, root) -> bool:
    if schema in (True, False):
        return schema
    assert schema.keys() <= _KNOWN, schema.keys() - _KNOWN
    if "$ref" in schema:
        target = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        if not accepts(target, data, root):
            return False
    number = isinstance(data, (int, float)) and not isinstance(data, bool)
    checks = [
        "type" not in schema or _is(schema["type"], data),
        "const" not in schema or data == schema["const"],
        "enum" not in schema or data in schema["enum"],
        "anyOf" not in schema or any(accepts(s, data, root) for s in schema["anyOf"]),
        "oneOf" not in schema or sum(accepts(s, data, root) for s in schema["oneOf"]) == 1,
        not number or schema.get("minimum", data) <= data <= schema.get("maximum", data),
        not number or "exclusiveMinimum" not in schema or data > schema["exclusiveMinimum"],
        not number or "exclusiveMaximum" not in schema or data < schema["exclusiveMaximum"],
        not isinstance(data, str) or re.search(schema.get("pattern", ""), data) is not None,
    ]
    if isinstance(data, dict):
        fields = schema.get("properties", {})
        rest = schema.get("additionalProperties", True)
        names = schema.get("propertyNames", True)
        checks += [set(schema.get("required", ())) <= data.keys()]
        checks += [schema.get("minProperties", 0) <= len(data) <= schema.get("maxProperties", len(data))]
        checks += [accepts(fields.get(key, rest), item, root) for key, item in data.items()]
        checks += [accepts(names, key, root) for key in data]
    if isinstance(data, (list, tuple)):
        firsts = schema.get("prefixItems", [])
        checks += [schema.get("minItems", 0) <= len(data) <= schema.get("maxItems", len(data))]
        checks += [accepts(s, item, root) for s, item in zip(firsts, data, strict=False)]
        checks += [accepts(schema.get("items", True), item, root) for item in data[len(firsts) :]]
    return all(checks)


def _is(kind: str, data) -> bool:
    if kind == "integer" and isinstance(data, float):
        return data.is_integer()
    return isinstance(data, _TYPES[kind]) and not (kind in ("integer", "number") and isinstance(data, bool))


@given(model_documents(match=None))
@settings(max_examples=150)
def test_the_schema_accepts_every_valid_model(document):
    schema = json_schema("model")
    assert accepts(schema, document, schema)
    canonical = ModelSpec.model_validate(document).canonical()
    assert accepts(schema, canonical, schema)


@given(study_documents())
@settings(max_examples=60)
def test_the_schema_accepts_every_study(document):
    schema = json_schema("search")
    assert accepts(schema, document, schema)


def test_the_schema_accepts_names():
    schema = json_schema("model")
    document = {"stem": "vit_c_4gf", "body": "vit_small_patch16_224", "match": {"reference": "vit_p_4gf"}}
    ModelSpec.model_validate(document)
    assert accepts(schema, document, schema)


def test_the_schema_accepts_what_ships():
    search, model = json_schema("search"), json_schema("model")
    assert accepts(search, read(CONV3X3).data, search)
    for name in published.names():
        entry = published.read(name)
        document = {"stem": entry["stem"], "body": entry.get("body", {"dim": entry["dim"], "depth": 1, "heads": 1})}
        assert accepts(model, document, model), name


@pytest.mark.parametrize(
    "change",
    [
        {"body": None}, {"classes": 0}, {"clases": 10}, {"stem": {"patch": 0}}, {"stem": {"patch": 8, "kernels": 3}},
        {"stem": {"channels": []}}, {"image_size": [1, 2, 3]}, {"stem": {"layers": [{"op": "cnv"}]}},
        {"body": {"dim": 24, "depth": 1, "heads": 3, "mlp_ratio": 0}},
        {"stem": {"layers": [{"op": "conv", "channels": 4, "kernel": 3, "padding": "sme"}]}},
        {"match": {"reference": {"patch": 8}, "metric": "latency"}},
    ],
)  # fmt: skip
def test_the_schema_refuses_what_validation_refuses(change):
    document = {"stem": {"patch": 8}, "body": {"dim": 24, "depth": 1, "heads": 3}, "image_size": 32, **change}
    schema = json_schema("model")
    with pytest.raises(ValidationError):
        ModelSpec.model_validate(document)
    assert not accepts(schema, json.loads(json.dumps(document)), schema)


@given(body_documents())
@settings(max_examples=30)
def test_bodies_round_trip(document):
    body = BodySpec.model_validate({**document, "heads": 1})
    assert BodySpec.model_validate(body.canonical()) == body
    assert abs(body.mlp_hidden - body.dim * body.mlp_ratio) < 1 + 1e-6


def test_a_changed_copy_forgets_what_was_worked_out():
    layer = ConvLayer(channels=4, kernel=3, padding=0)
    assert layer.window == (3, 3, 1, 1)
    assert layer.model_copy(update={"kernel": 5}).window == (5, 5, 1, 1)
    stem = StemSpec.model_validate({"channels": [4, 4]})
    assert stem.stride == (4, 4)
    halved = stem.model_copy(update={"layers": stem.layers[:1]})
    assert halved.stride == (2, 2)
    assert len(halved.trace(8, 8, 16)) == 1
