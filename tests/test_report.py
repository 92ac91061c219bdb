"""The report: ranking, labels, figures, page and summary, against numbers worked out by hand."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from planted_searches import plant_search

from stemlab import Study
from stemlab.analysis.labels import label, stem_label
from stemlab.analysis.ranking import best, latest, pareto, rank, to_frame
from stemlab.errors import SpecError, StudyError
from stemlab.records import StudyFolder, TrialRecord
from stemlab.report import svg, write
from stemlab.report.numbers import quantity
from stemlab.report.search import figures
from stemlab.report.search.content import gather
from stemlab.spec.files import dump_yaml

STUDY: dict[str, Any] = {
    "name": "tiny",
    "model": {"stem": {"patch": {"choice": [4, 8]}}, "body": {"dim": 32, "depth": 2, "heads": 2}},
    "data": {"name": "digits"},
    "train": {"epochs": 3},
    "search": {"trials": 3, "seeds": [0], "objective": {"maximize": "top1"}},
}
EVIL = '</pre><script src="https://evil.example/x.js">alert(1)</script> $\\frac{ | `b` *c*'


def record(proposal: int | None, top1: float | None = None, seed: int = 0, **changes: Any) -> TrialRecord:
    metrics: dict[str, float] = {"seconds": 10.0 + seed}
    if top1 is not None:
        metrics |= {"top1": top1, "top1_error": 1 - top1, "loss": 2 * (1 - top1), "test_top1": top1 - 0.02}
    values: dict[str, Any] = {
        "trial": f"{proposal}-{seed}",
        "status": "ok" if top1 is not None else "diverged",
        "model": {"stem": {"patch": 4 if proposal == 0 else 8}},
        "train": {"lr": 0.001},
        "data": {"name": "digits"},
        "seed": seed,
        "assignment": {"model.stem.patch": 4 if proposal == 0 else 8, "train.lr": 0.001},
        "metrics": metrics,
        "cost": {"flops": 8_019_648, "params": 449_178, "stem_flops": 800_000, "stem_flops_share": 0.1},
        "match": {"depth": 4, "mlp_hidden": 344, "metric": "flops", "target": 8_038_080, "error": -0.0023},
        "curve": [{"epoch": e, "loss": 1 / e, "top1": (top1 or 0.3) * e / 3} for e in (1, 2, 3)],
        "proposal": proposal,
    }
    return TrialRecord(**{**values, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    folder = StudyFolder(tmp_path / "run")
    folder.path.mkdir()
    (folder.path / "study.yaml").write_text(dump_yaml(STUDY))
    return folder


def put(folder: StudyFolder, *records: TrialRecord, **search: Any) -> StudyFolder:
    study = {**STUDY, "search": {**STUDY["search"], **search}}
    (folder.path / "study.yaml").write_text(dump_yaml(study))
    folder.records_file.write_text("".join(r.to_json() + "\n" for r in records))
    return folder


# Ranking


def test_the_frame_has_one_row_a_trial_and_a_column_for_everything() -> None:
    frame = to_frame([record(0, 0.9), record(1, error="nan", assignment={"model.stem": {"patch": 8}})])
    assert list(frame["trial"]) == ["0-0", "1-0"]
    assert list(frame["status"]) == ["ok", "diverged"]
    assert frame["model.stem.patch"][0] == 4
    assert frame["model.stem"][1] == '{"patch":8}'
    assert frame["top1"][0] == 0.9
    assert math.isnan(frame["top1"][1])
    assert frame["match_error"][0] == -0.0023
    assert (frame["depth"][0], frame["mlp_hidden"][0], frame["flops"][0]) == (4, 344, 8_019_648)
    assert frame["error"][1] == "nan"


def test_the_frame_and_ranking_of_no_records_have_their_columns() -> None:
    assert {"trial", "proposal", "match_error", "error"} <= set(to_frame([]).columns)
    assert {"label", "top1", "test_top1", "stem_flops_share"} <= set(rank([], "top1", 1).columns)
    assert best([], "top1", 1) is None


def test_a_rank_is_the_mean_over_seeds_with_its_sample_deviation() -> None:
    rows = rank([record(0, 0.90), record(0, 0.96, 1), record(1, 0.92), record(1, 0.92, 1)], "top1", 1)
    assert list(rows["proposal"]) == [0, 1]
    assert rows["top1"][0] == pytest.approx(0.93)
    assert rows["top1_std"][0] == pytest.approx(0.03 * math.sqrt(2))  # two values 0.06 apart, n - 1 = 1
    assert rows["top1_std"][1] == pytest.approx(0)
    assert rows["test_top1"][0] == pytest.approx(0.91)
    assert rows["seconds"][0] == pytest.approx(10.5)
    assert list(rows["seeds"]) == [2, 2]
    assert math.isnan(rank([record(0, 0.9)], "top1", 1)["top1_std"][0])


def test_the_sign_turns_the_order_and_ties_stand_as_proposed() -> None:
    records = [record(3, 0.9), record(1, 0.9), record(2, 0.8)]
    assert list(rank(records, "top1", 1)["proposal"]) == [1, 3, 2]
    assert list(rank(records, "top1_error", -1)["proposal"]) == [1, 3, 2]
    assert list(rank(records, "loss", 1)["proposal"]) == [2, 1, 3]
    assert best(records, "loss", -1) == 1


def test_a_proposal_with_a_bad_trial_comes_after_every_ok_one_and_is_kept() -> None:
    bad = [record(0, 0.99), record(0, seed=1, status="failed"), record(2, status="diverged"), record(3, 0.95)]
    rows = rank([*bad, record(4, 0.5), record(3, 0.9, 1, status="pruned")], "top1", 1)
    assert list(rows["proposal"]) == [4, 3, 2, 0]
    assert list(rows["status"]) == ["ok", "pruned", "diverged", "failed"]
    assert list(rows["seeds"]) == [1, 2, 0, 1]
    assert list(rows["runs"]) == [1, 2, 1, 2]
    assert best(bad, "top1", 1) == 3


def test_what_is_not_measured_is_never_best() -> None:
    assert best([record(0, 0.5, metrics={"seconds": 1.0}), record(1, 0.1)], "top1", 1) == 1
    assert best([record(0, 0.5, metrics={})], "top1", 1) is None
    assert best([record(0)], "top1", 1) is None


def test_the_test_part_cannot_rank() -> None:
    with pytest.raises(SpecError, match=r"test_top1.*validation"):
        rank([record(0, 0.5)], "test_top1", 1)


def test_a_trial_run_again_counts_by_its_last_record() -> None:
    records = [record(0, error="crashed", status="failed"), record(1, 0.8), record(0, 0.9)]
    assert [(r.proposal, r.status) for r in latest(records)] == [(0, "ok"), (1, "ok")]
    assert best(records, "top1", 1) == 0


def test_trials_of_no_proposal_are_ranked_too() -> None:
    rows = rank([record(None, 0.9), record(None, 0.7, 1), record(0, 0.5)], "top1", 1)
    assert len(rows) == 2
    assert rows["top1"][0] == pytest.approx(0.8)
    assert pd.isna(rows["proposal"][0])


def test_pareto_keeps_what_nothing_dominates() -> None:
    # 0 is cheapest, 1 better and dearer, 2 as dear as 1 and worse, 3 is 1's twin, 4 dearest and worst, 5 unknown.
    frame = pd.DataFrame({"cost": [1, 2, 2, 2, 9, 0], "value": [0.5, 0.8, 0.7, 0.8, 0.1, np.nan]})
    assert pareto(frame, "cost", "value", 1).tolist() == [True, True, False, True, False, False]
    assert pareto(frame, "cost", "value", -1).tolist() == [True, False, False, False, True, False]
    assert pareto(frame.iloc[:0], "cost", "value", 1).tolist() == []


# Labels

CONV = {"op": "conv", "channels": 16, "kernel": 3, "stride": 2}


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ({"patch": 8}, "patchify 8"),
        ({"patch": 8, "bias": False}, "patchify 8(no bias)"),
        (
            {"channels": [16, 32, 64], "norm": "batch", "act": "relu"},
            "conv 3x3 16/2-32/2-64/2 batch relu",
        ),
        ({"channels": [16, 32], "strides": [4, 1]}, "conv 3x3 16/4-32 no norm no act"),
        (
            {"channels": [16, 32], "kernels": [7, 3], "norm": ["batch", None], "act": ["relu", "gelu"]},
            "conv 7x7 16/2 3x3 32/2 batch-none relu-gelu",
        ),
        (
            {"channels": [16, 32], "norm": "batch", "act": "relu", "order": "conv-act-norm", "bias": True},
            "conv 3x3 16/2-32/2 relu batch bias",
        ),
        (
            {"layers": [{**CONV, "norm": {"kind": "batch", "eps": 0.001}}, {"op": "pool", "kind": "max", "kernel": 2}]},
            "conv 3x3 16/2 batch(eps=0.001) no act, max pool 2x2/2",
        ),
        ({"layers": [{"op": "of_a_later_version"}]}, '{"layers": [{"op": "of_a_later_version"}]}'),
    ],
)
def test_a_stem_in_short(stem: dict[str, Any], expected: str) -> None:
    assert stem_label(json.dumps(stem)) == expected


def test_a_label_names_the_other_holes_once() -> None:
    assignment = {
        "model.stem.choice[1].norm": "batch",
        "train.lr": 0.00123456,
        "model.body": {"depth": 4, "heads": 2},
        "model.body.choice[0].depth": 4,
    }
    assert label(record(0, 0.9, assignment=assignment)) == "patchify 4, lr=0.001235, depth=4, heads=2"


# Figures


def test_the_cost_figure_draws_what_it_is_given() -> None:
    ranked = rank([record(p, 0.9 - p / 10, cost={"stem_flops_share": 0.3 - p / 10}) for p in range(3)], "top1", 1)
    figure = figures.accuracy_against_cost(ranked, np.array([True, False, True]))
    drawn = {c.get_label(): np.asarray(c.get_offsets()) for c in figure.axes[0].collections if c.get_label()[0] != "_"}
    assert drawn["best"] == pytest.approx(np.array([[30, 90]]))
    assert drawn["dominated"] == pytest.approx(np.array([[20, 80]]))
    assert drawn["Pareto front"] == pytest.approx(np.array([[10, 70]]))
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "3"]


def test_error_bars_are_deviations_over_seeds() -> None:
    ranked = rank([record(0, 0.90), record(0, 0.96, 1)], "top1", 1)
    (bar,) = figures.accuracy_against_cost(ranked, np.array([True])).axes[0].containers
    (low, high) = bar[2][0].get_segments()[0][:, 1]
    assert (high - low) / 2 == pytest.approx(3 * math.sqrt(2))


def test_curves_are_drawn_by_what_became_of_the_trial() -> None:
    records = [record(0, 0.9), record(1, 0.8), record(2), record(3, 0.7, curve=[])]
    figure = figures.learning_curves(records, {0: EVIL})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [EVIL, "the others", "diverged or failed"]
    highlighted, other, diverged = figure.axes[0].lines
    assert list(highlighted.get_xdata()) == [1, 2, 3]
    assert highlighted.get_ydata() == pytest.approx([30, 60, 90])
    assert highlighted.get_linewidth() > other.get_linewidth()
    assert (other.get_linestyle(), diverged.get_linestyle()) == ("-", "--")
    assert "script" in svg.to_svg(figure, "x", EVIL)
    assert "<script" not in svg.to_svg(figure, "x", EVIL)


def test_a_figure_is_text_with_its_own_ids_and_no_date() -> None:
    text = svg.to_svg(figures.learning_curves([record(0, 0.9)], {0: "first"}), "mine", 'so "called"')
    assert text.startswith('<svg role="img" aria-label="so &#34;called&#34;"')
    assert ">Epoch</text>" in text
    assert "metadata" not in text
    assert all(name.startswith("mine-") for name in re.findall(r'\bid="([^"]+)"', text))
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', text)) <= set(re.findall(r'\bid="([^"]+)"', text))


# Page and summary


class Page(HTMLParser):
    """Collects what a page would load, its tags, its ids and its cells; fails on tags that do not pair."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.loads.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag == "th":
            assert dict(attributes).get("scope") in ("col", "row")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def both(folder: StudyFolder) -> tuple[Page, str, str]:
    page, summary = write(folder)
    html = page.read_text(encoding="utf-8")
    return Page(html), html, summary.read_text(encoding="utf-8")


def test_the_page_stands_alone(folder: StudyFolder) -> None:
    page, html, _ = both(put(folder, record(0, 0.9), record(1, 0.8), record(2)))
    assert all(load.startswith("#") for load in page.loads)
    assert not re.findall(r"url\((?!#)|@import|@font-face", html)
    assert "script" not in page.tags
    assert set(re.findall(r"https?://[^\"' )]+", html)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert page.tags.count("svg") == 3
    assert len(page.ids) == len(set(page.ids))


def test_the_same_records_give_the_same_bytes(folder: StudyFolder) -> None:
    put(folder, record(0, 0.9), record(0, 0.8, 1), record(1, 0.7), record(2), seeds=[0, 1])
    first = [path.read_bytes() for path in write(folder)]
    code = (
        "import sys; from stemlab.records import *; from stemlab.report import write; write(StudyFolder(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(folder.path)], check=True)
    assert first == [(folder.path / name).read_bytes() for name in ("report.html", "summary.md")]


def test_the_table_holds_the_numbers(folder: StudyFolder) -> None:
    page, _, summary = both(put(folder, record(1, 0.8), record(0, 0.9), record(2, error="loss is nan")))
    rows = [
        ["1", "patchify 4, lr=0.001", "90.0", "88.0", "1", "449 k", "8.02 M", "10.0", "−0.23", "10.0", "ok"],
        ["2", "patchify 8, lr=0.001", "80.0", "78.0", "1", "449 k", "8.02 M", "10.0", "−0.23", "10.0", "ok"],
        ["–", "patchify 8, lr=0.001", "–", "–", "0 of 1", "449 k", "8.02 M", "10.0", "−0.23", "–", "diverged"],
    ]
    assert page.rows[1:4] == rows
    for row in rows:
        assert f"| {' | '.join(row)} |\n" in summary
    table = [line for line in summary.splitlines() if line.startswith("|")]
    assert len(table) == 5
    assert {line.count("|") for line in table} == {12}
    assert "loss is nan" in summary


def test_the_headline_and_what_next(folder: StudyFolder) -> None:
    content = gather(put(folder, record(0, 0.9), record(1, 0.8), record(2, 0.5)))
    assert content.headline == (
        "Of 3 proposals, patchify 4, lr=0.001 came out best: 90.0 % top-1 on the validation part, 88.0 % on the test "
        "part, 8.02 M multiply-adds, 449 k parameters, −0.23 % off the cost it was matched to."
    )
    assert dict(content.commands) == {
        "Build the best model": f"stemlab build {folder.path}/best.json",
        "Run the same search again": f"stemlab search {folder.path}/study.yaml --out {folder.path}-again",
    }


def test_one_seed_and_a_small_test_part_are_said_plainly(folder: StudyFolder) -> None:
    notes = " ".join(gather(put(folder, record(0, 0.90), record(1, 0.89), record(2, 0.5))).notes)
    assert "a single seed" in notes
    assert "360 images each" in notes  # 20 % of 1,797, rounded up
    assert "one test image is 0.28 points" in notes  # 100 / 359
    assert "is 1.6 points; 1 other proposal came within" in notes  # sqrt(0.9 * 0.1 / 359) = 0.0158


def test_several_seeds_are_said_and_missing_ones_shown(folder: StudyFolder) -> None:
    put(folder, record(0, 0.90), record(0, 0.96, 1), record(1, 0.5), seeds=[0, 1])
    page, html, _ = both(folder)
    assert [row[2] for row in page.rows[1:3]] == ["93.0 ± 4.2", "50.0"]
    assert [row[4] for row in page.rows[1:3]] == ["2", "1 of 2"]
    assert "means over 2 seeds" in html
    assert "single seed" not in html


def test_an_unfinished_search_says_so_and_how_to_go_on(folder: StudyFolder) -> None:
    content = gather(put(folder, record(0, 0.9), trials=12))
    assert content.notes[0].startswith("1 of 12 planned proposals are in so far")
    assert content.commands[0][1] == f"stemlab search {folder.path}/study.yaml --out {folder.path} --resume"


def test_a_search_that_ended_early_says_so_and_need_not_go_on(folder: StudyFolder) -> None:
    put(folder, record(0, 0.9), trials=12).write_json("manifest.json", {"finished": "2025-11-21T06:08:12Z"})
    content = gather(folder)
    assert content.notes[0] == "The search ended with 1 of 12 planned proposals: there were no more to try."
    assert not any("--resume" in command for _, command in content.commands)


def test_another_objective_ranks_and_shows(folder: StudyFolder) -> None:
    put(folder, record(0, 0.9), record(1, 0.95), record(2, 0.8), objective={"minimize": "loss"})
    page, _, summary = both(folder)
    assert page.rows[0][2] == "Validation loss"
    assert [row[2] for row in page.rows[1:4]] == ["0.1000", "0.2000", "0.4000"]
    assert "came out best: 0.1000 validation loss, 95.0 % top-1" in summary


def test_text_is_escaped(folder: StudyFolder) -> None:
    records = [record(0, 0.9, assignment={"train.name": EVIL}), record(1, error=EVIL), record(2, 0.5, seed=0)]
    study = {**STUDY, "train": {"note": EVIL}}
    put(folder, *records)
    (folder.path / "study.yaml").write_text(dump_yaml(study))
    folder.write_json("manifest.json", {"command": EVIL, EVIL: [EVIL]})
    page, html, summary = both(folder)
    assert "script" not in page.tags
    assert all(load.startswith("#") for load in page.loads)
    assert "<script" not in html
    assert "<script" not in summary
    assert r"\| \`b\` \*c\*" in summary
    assert html.count("&lt;script") >= 5


def test_nothing_only_bad_trials_and_one_trial_make_reports(folder: StudyFolder) -> None:
    page, html, summary = both(put(folder))
    assert "No trial has finished yet." in html
    assert "No trial has finished yet." in summary
    assert "svg" not in page.tags
    assert page.rows == []

    bad = [record(0, status="failed", error="CUDA is out of memory", curve=[], metrics={}), record(1, error=None)]
    page, html, summary = both(put(folder, *bad))
    assert "None of 2 proposals finished with a validation top-1" in summary
    assert "CUDA is out of memory" in html
    assert "stemlab build" not in html + summary
    assert page.tags.count("svg") == 1  # the diverged trial's curve

    page, _, summary = both(put(folder, record(0, 0.9)))
    assert "Of 1 proposal, patchify 4" in summary
    assert page.tags.count("svg") == 2


def test_records_that_lack_numbers_make_a_report(folder: StudyFolder) -> None:
    bare = record(0, 0.9, metrics={}, cost={}, match={}, assignment={}, model={}, data={}, curve=[{"epoch": 1.0}])
    page, _, _ = both(put(folder, bare))
    assert page.rows[1] == ["–", "–", "–", "–", "1", "–", "–", "–", "–", "–", "ok"]
    unmatched = record(0, 0.9, match={"error": None}, metrics={"top1": 0.9})
    assert gather(put(folder, unmatched)).headline.endswith("8.02 M multiply-adds, 449 k parameters.")


def test_the_manifest_is_told_and_may_be_missing_or_broken(folder: StudyFolder) -> None:
    put(folder, record(0, 0.9))
    assert gather(folder).manifest == []
    (folder.path / "manifest.json").write_text("{")
    assert gather(folder).manifest == []
    folder.write_json(
        "manifest.json", {"versions": {"torch": "2.9"}, "hardware": {"cores": 2, "gpus": []}, "commit": None}
    )
    assert gather(folder).manifest == [
        ("versions.torch", "2.9"),
        ("hardware.cores", "2"),
        ("hardware.gpus", "none"),
        ("commit", "–"),
    ]


def test_a_folder_of_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"no study\.yaml"):
        write(StudyFolder(tmp_path))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (999.6, "1.00 k"), (1234, "1.23 k"), (449_178, "449 k"), (999_600, "1.00 M"),
     (9_996_000, "10.0 M"), (8_019_648, "8.02 M"), (3_958_940_928, "3.96 G"), (math.nan, "–")],
)  # fmt: skip
def test_quantities_have_three_digits(value: float, text: str) -> None:
    assert quantity(value) == text


def test_importing_the_report_is_cheap() -> None:
    heavy = ("pandas", "matplotlib", "jinja2", "torch")
    code = f"import sys, stemlab.report; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


# What a search found


def heading(content: Any, name: str) -> Any:
    return next(section for section in content.sections if section.name == name)


def test_the_best_so_far_is_drawn_against_what_chance_would_have_made_of_it(tmp_path: Path) -> None:
    content = gather(plant_search(tmp_path / "tpe", 20))
    (picture,) = heading(content, "progress").pictures
    assert "the same results in a random order, expected" in picture.svg
    assert "That is no random search" in picture.caption
    (picture,) = heading(gather(plant_search(tmp_path / "alone" / "r", 20, tuner="random")), "progress").pictures
    assert "best of n random draws, expected" in picture.svg


def test_a_random_search_beside_is_drawn_too(tmp_path: Path) -> None:
    folder = plant_search(tmp_path / "tpe", 20)
    plant_search(tmp_path / "other objective", 30, tuner="random", objective={"minimize": "loss"})
    plant_search(tmp_path / "other seeds", 30, tuner="random", seeds=[1])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "study.yaml").write_text("tuner: random\n{")
    (picture,) = heading(gather(folder), "progress").pictures
    assert "random search (" not in picture.svg
    plant_search(tmp_path / "chance", 25, tuner="random")
    (picture,) = heading(gather(folder), "progress").pictures
    assert "random search (chance)" in picture.svg
    assert "best of n random draws, expected" in picture.svg


def test_what_became_of_trials_is_told_in_words(tmp_path: Path) -> None:
    def fate(number: int, given: dict[str, Any]) -> dict[str, Any]:
        if number < 3:
            return {"status": "pruned", "until": 2, "curve": given["curve"][:2]}
        if number < 5:
            return {"status": "pruned", "curve": given["curve"][:3]}
        if number == 5:
            return {"status": "infeasible", "metrics": {"latency": 12.34, "stem_latency": 3.0}, "curve": []}
        return {"metrics": {**given["metrics"], "latency": 5.0}}

    fidelity = {"kind": "halving"}
    folder = plant_search(tmp_path / "run", 20, change=fate, fidelity=fidelity, trials=50)
    folder.write_json("manifest.json", {"finished": "now", "stopped": "search.stop.patience: enough"})
    content = gather(folder)
    section = heading(content, "ended")
    assert "3 trials stopped at a rung of the halving" in section.words[0]
    assert "3 behind epoch 2" in section.words[0]
    assert "2 trials stopped behind epoch 3" in section.words[1]
    assert section.tables[0].rows == ((content.rows[-1]["label"], "latency 12.3 ms, stem’s latency 3 ms"),)
    assert content.notes[0] == "The search ended early, with 20 of 50 planned proposals: search.stop.patience: enough."
    assert [content.rows[0][name] for name in ("latency", "status")] == ["5", "ok"]
    assert [content.rows[-1][name] for name in ("rank", "latency", "status")] == ["–", "12.3", "infeasible"]
    page, _, summary = both(folder)
    assert any("Latency (ms)" in row for row in page.rows)
    assert "3 behind epoch 2" in summary


def test_several_objectives_have_a_front_and_its_growth(tmp_path: Path) -> None:
    folder = plant_search(tmp_path / "run", 20, objective=[{"maximize": "top1"}, {"minimize": "flops"}])
    content = gather(folder)
    section = heading(content, "front")
    assert len(section.pictures) == 2
    shown = [tuple(row[1:]) for row in section.tables[0].rows]
    assert len(shown) == len(Study(folder.path).front)
    assert any("2 objectives are sought" in note for note in content.notes)
    page, _, summary = both(folder)
    assert "## Pareto front" in summary
    assert page.tags.count("svg") >= 5


def test_a_screen_is_judged_and_what_waited_is_listed(tmp_path: Path) -> None:
    def scored(number: int, given: dict[str, Any]) -> dict[str, Any]:
        return {"screen": given["metrics"]["top1"]}

    folder = plant_search(tmp_path / "run", 20, change=scored, screen={"by": "synflow"})
    folder.write_json("waiting.json", [{"model": {"stem": {"patch": 4}}, "assignment": {"train.lr": 0.1}, "screen": 2}])
    section = heading(gather(folder), "screen")
    assert "Spearman’s ρ 1.00 (1.00 to 1.00)" in section.words[0]
    assert section.tables[0].rows == (("patchify 4, lr=0.1", "2"),)


def test_draws_and_their_judge_are_said_and_rank(folder: StudyFolder) -> None:
    def trial(proposal: int, draw: int, top1: float | None) -> TrialRecord:
        filled = {"model.stem.patch": 4 if proposal == 0 else 8, "train.lr": 0.1**draw}
        return record(proposal, top1, trial=f"{proposal}-{draw}", assignment=filled)

    # By the mean 1 is best, by the median 0, which diverged once.
    values = {0: (0.8, 0.8, None), 1: (0.79, 0.79, 0.99)}
    records = [trial(proposal, draw, top1) for proposal in values for draw, top1 in enumerate(values[proposal])]
    document = {**STUDY, "train": {"epochs": 3, "lr": {"log_uniform": [0.001, 1]}}}
    draws = {"over": ["train.lr"], "count": 3}
    for judge, best_label in (("mean", "patchify 8"), ("median", "patchify 4")):
        put(folder, *records)
        search = {**STUDY["search"], "draws": draws, "judge": judge}
        (folder.path / "study.yaml").write_text(dump_yaml({**document, "search": search}))
        content = gather(folder)
        assert content.best == best_label  # without the learning rate, which differs from draw to draw
        assert any("the same 3 draws of train.lr" in note for note in content.notes)
        assert any("judged by the median" in note for note in content.notes) == (judge == "median")
        assert Study(folder.path).find_best() == {"stem": {"patch": 4 if judge == "median" else 8}}


def test_many_proposals_make_a_page_of_bounded_size(tmp_path: Path) -> None:
    def fate(number: int, given: dict[str, Any]) -> dict[str, Any]:
        return {"status": "failed", "error": "x" * 50, "metrics": {}} if number % 10 == 0 else {}

    folder = plant_search(tmp_path / "run", 2000, change=fate, trials=2000)
    page, html, summary = both(folder)
    assert len(html) < 700_000
    assert len(summary) < 100_000
    ranking = [row for row in page.rows if len(row) == 11]
    assert len(ranking) == 1 + 200
    assert "The first 200 of 2,000 proposals are shown; all of them are in ranking.csv." in html
    assert "The first 50 of 200 trials are shown; all of them are in records.jsonl." in html
    table = pd.read_csv(folder.path / "ranking.csv")
    assert len(table) == 2000
    assert table["top1"][:1800].is_monotonic_decreasing
