"""The study of the paper's smallest pair at 224 pixels: its cost as it stands, and a run of it in small."""

from __future__ import annotations

import pytest
from conftest import REPOSITORY

import stemlab
from stemlab.running import load_ablation

FILE = REPOSITORY / "search_spaces" / "fractals_224.yaml"
SMALL = [
    "data.classes=3", "data.images_per_class=20", "ablate.seeds=[0]",
    "model.body={dim: 24, depth: 2, heads: 2, mlp_ratio: 2}", "model.match.tolerance=0.2",
    "model.stem.choice.ViT_C.channels=[3, 6, 12, 24]",
    "train={epochs: 2, batch_size: 12}", "engine.workers=0",
]  # fmt: skip


def test_the_arms_are_the_papers_at_equal_multiply_adds():
    patchify, convolutions = load_ablation(FILE).arms
    assert patchify.matched.cost.flops == stemlab.cost("vit_p_1gf").flops - _head("vit_p_1gf", 1000 - 100)
    assert convolutions.matched.cost.flops == pytest.approx(patchify.matched.cost.flops, rel=0.005)
    assert convolutions.matched.model.body.depth == stemlab.load("vit_c_1gf").body.depth
    assert convolutions.model.stem == stemlab.load("vit_c_1gf").stem


def _head(name, classes):
    return stemlab.load(name).body.dim * classes


def test_both_learn_at_224_pixels_and_the_report_shows_how(tmp_path):
    study = stemlab.ablate(FILE, tmp_path / "study", changes=SMALL)
    assert [record.status for record in study.trials] == ["ok", "ok"]
    assert all(record.data["image_size"] == 224 and len(record.curve) == 2 for record in study.trials)
    page = (study.folder.path / "report.html").read_text()
    assert "How the arms learned" in page
    assert "ViT_P" in page
    assert "ViT_C" in page
