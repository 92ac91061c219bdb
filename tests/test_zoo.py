"""The zoo: every published stem, its counts to the last parameter."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import REPOSITORY
from layer_lists import FACTS, convert, expected_output
from torch.utils.flop_counter import FlopCounterMode

from stemlab import SpecError, StemSpec, build_stem, cost, diagram, load, zoo
from stemlab.builders import Stem, build_model
from stemlab.spec.base import pair
from stemlab.spec.layers import ConvLayer, ParallelLayer, PatchifyLayer

NAMES = zoo.names()
DIM = 768  # another body's width, divisible by every part of it that a stem asks for


def assert_counts(trace, fact):
    assert tuple(trace.end) == expected_output(fact)
    assert trace.counts.params == fact["params"]
    assert trace.counts.flops == fact["macs"]
    assert trace.counts.bias_adds == fact["bias_adds"]
    assert trace.counts.activations == fact["conv_acts"]
    assert trace.stride == (fact["total_stride"],) * 2
    assert trace.receptive_field == (fact["receptive_field"],) * 2


@pytest.mark.zoo
@pytest.mark.parametrize("name", FACTS)
def test_a_layer_list_becomes_a_stem_with_the_counts_of_the_original(name):
    fact = FACTS[name]
    channels, height, width = fact["measured_at"]
    stem = convert(fact["layers"])
    assert_counts(stem.trace(height, width, expected_output(fact)[0], channels), fact)


def test_all_108_published_stems_are_there():
    assert len(FACTS) == 108
    assert FACTS.keys() <= set(NAMES)


def settled(trace) -> list:
    """What the layers are, whatever words say it: channels and groups as numbers, a patch as a convolution."""
    found = []
    for step in trace:
        layer = step.layer
        if isinstance(layer, PatchifyLayer):
            size = {"kernel": layer.patch, "stride": layer.patch, "padding": 0}
            layer = ConvLayer(channels=layer.channels, bias=layer.bias, **size)
        words = layer.canonical()
        if isinstance(layer, ConvLayer):
            words |= {"channels": step.after.channels, "groups": layer.group_count(step.before.channels)}
        if isinstance(layer, ParallelLayer):
            branches = [settled(branch) for branch in layer.traces(step.before, trace.dim)]
            words["branches"] = sorted(branches, key=str) if layer.merge != "concat" else branches
        found.append(words)
    return found


@pytest.mark.zoo
@pytest.mark.parametrize("name", FACTS)
def test_an_entry_is_the_layer_list_of_the_original(name):
    entry, fact = zoo.get(name), FACTS[name]
    assert [entry.in_channels, *pair(entry.image_size)] == fact["measured_at"]
    assert_counts(entry.trace(), fact)
    original = convert(fact["layers"]).trace(*fact["measured_at"][1:], entry.dim, entry.in_channels)
    assert settled(entry.trace()) == settled(original)


@pytest.mark.zoo
@pytest.mark.parametrize("name", NAMES)
def test_the_counts_of_an_entry_are_golden_in_closed_form_and_as_built(name):
    entry = zoo.get(name)
    trace = entry.trace()
    (stride,), (field,) = set(trace.stride), set(trace.receptive_field)
    found = {**trace.counts._asdict(), "output": list(trace.end), "stride": stride, "receptive_field": field}
    assert found == entry.golden
    with torch.device("meta"):
        stem = Stem(entry.stem, img_size=entry.image_size, in_chans=entry.in_channels, embed_dim=entry.dim)
        image = torch.empty(1, *trace.start)
    assert sum(parameter.numel() for parameter in stem.parameters()) == entry.golden["params"]
    with FlopCounterMode(display=False) as counter:
        assert tuple(stem.layers(image).shape[1:]) == tuple(entry.golden["output"])
    assert counter.get_total_flops() == 2 * entry.golden["flops"]


@pytest.mark.zoo
@pytest.mark.parametrize("name", NAMES)
def test_a_stem_fits_a_body_of_another_width(name):
    entry = zoo.get(name)
    trace = StemSpec.model_validate(name).trace(*pair(entry.image_size), DIM, entry.in_channels)
    assert trace.end == entry.trace().end._replace(channels=DIM)


@pytest.mark.zoo
@pytest.mark.parametrize("name", [name for name in NAMES if zoo.get(name).golden_model])
def test_whole_models_have_the_published_totals(name):
    entry = zoo.get(name)
    assert cost(name).total._asdict() == entry.golden_model
    with torch.device("meta"):
        model = build_model(entry.model)
    assert sum(parameter.numel() for parameter in model.parameters()) == entry.golden_model["params"]


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_says_where_it_is_from(name):
    entry = zoo.get(name)
    assert entry.name == name
    assert entry.title
    assert entry.source
    assert entry.paper.authors
    assert entry.paper.arxiv or entry.paper.url
    assert 2010 < entry.paper.year < 2030
    assert entry.checked.split()[0] in ("timm", "torchvision", "counts")
    bibtex = entry.paper.bibtex()
    assert bibtex.count("{") == bibtex.count("}")
    assert entry.paper.title in bibtex


def test_a_stem_between_stages_takes_the_channels_that_it_was_published_with():
    entry = zoo.get("cvt13_21_stage2")
    stem = build_stem("cvt13_21_stage2")
    assert stem.in_chans == entry.in_channels == 64
    assert sum(parameter.numel() for parameter in stem.parameters()) == entry.golden["params"]
    assert "64×56×56" in diagram(entry, dim=96).svg


def test_names_are_found_in_any_case_and_by_file():
    assert zoo.get("vit_c_4GF") == zoo.get("vit_c_4gf")
    assert StemSpec.model_validate("ViT_C_4GF") == zoo.get("vit_c_4gf").stem
    assert zoo.get("levit_128").scale == "128"
    with pytest.raises(SpecError, match=r"levit_129.*did you mean 'levit_128'"):
        zoo.get("levit_129")


def test_entries_are_selected_by_family_stride_and_size():
    assert {entry.name for entry in zoo.select(family="levit")} == {"levit_128", "levit_384"}
    chosen = zoo.select(stride=16, max_params=100_000)
    expected = {e.name for e in map(zoo.get, NAMES) if e.trace().stride == (16, 16) and e.golden["params"] <= 100_000}
    assert {entry.name for entry in chosen} == expected
    assert expected
    with pytest.raises(SpecError, match=r"'leviT'.*did you mean 'levit'"):
        zoo.select(family="leviT")


def test_the_command_lists_shows_and_filters(cli):
    listed = json.loads(cli("zoo", "--json").stdout)
    assert [entry["name"] for entry in listed] == NAMES
    assert cli("zoo", "--family", "levit", "--json").stdout.count('"name": "levit_') == 2
    assert "levit_384" in cli("zoo", "--stride", "16").stdout
    shown = cli("zoo", "levit_128").stdout
    assert all(word in shown for word in ("conv 3x3 stride 2x2", "128x14x14", "2104.01136", "@inproceedings{"))
    assert cli("zoo", "--family", "nothing").returncode == 2


def test_a_stem_is_put_on_a_body_by_an_option(cli, tmp_path):
    on_body = {"stem": "fastvit_t8_train", "body": "deit_tiny_patch16_224", "image_size": 224}
    (row,) = json.loads(cli("cost", "fastvit_t8_train", "--body", "deit_tiny_patch16_224", "--json").stdout)
    assert row["params"] == cost(on_body).params
    built = cli("build", "levit_128", "--body", "vit_tiny_patch16_224", "--out", "m", "--diagram", "s.svg")
    assert "as counted" in built.stdout
    assert "levit_128" in (tmp_path / "s.svg").read_text()
    assert load(str(tmp_path / "m")).stem == zoo.get("levit_128").stem
    shown = cli("zoo", "fastvit_t8_train").stdout
    assert "sum of 2 branches" in shown
    assert "--body" in shown
    alone = cli("build", "levit_128")
    assert (alone.returncode, alone.stdout) == (2, "")
    assert "--body vit_small_patch16_224" in alone.stderr


def test_the_table_of_the_docs_is_what_the_command_prints(cli):
    assert cli("zoo", "--markdown").stdout.strip() in (REPOSITORY / "docs" / "zoo.md").read_text(encoding="utf-8")
