"""The report of an ablation: planted truths, everything that can be missing, hostile names, and a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from planted import EVIL, TINY, TWENTY, plant
from test_report import Page

import stemlab
from stemlab.analysis.latex import escape
from stemlab.records import StudyFolder
from stemlab.report import write
from stemlab.report.ablation.columns import p_value
from stemlab.report.ablation.lines import Line, Panel, lines
from stemlab.report.ablation.looks import MOST, looks
from stemlab.report.ablation.maps import Axis, Draws, maps
from stemlab.report.ablation.outcome import Outcome
from stemlab.report.forest import Estimate, forest

FEW = {**TINY, "ablate": {"draws": 7, "seeds": [0]}}


def report(folder: StudyFolder) -> tuple[Page, str, str]:
    page, summary = write(folder)
    html = page.read_text(encoding="utf-8")
    return Page(html), html, summary.read_text(encoding="utf-8")


def table(folder: StudyFolder, name: str) -> pd.DataFrame:
    return pd.read_csv(folder.path / "tables" / f"{name}.csv")


def shown_arm(page: Page) -> list[str]:
    """Return the cells of the one arm that is compared with the baseline, which stands above it."""
    return page.rows[next(i for i, row in enumerate(page.rows) if row[:2] == ["batch", row[1]] and row[2] == "–") + 1]


# A study that really ran


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> stemlab.Study:
    claim = {
        "name": "norm",
        "says": "Batch norm helps.",
        "source": "arXiv 0000.00000",
        "measure": "test_top1",
        "compare": {"norm": ["none", "batch"]},
        "expect": {"min": -1, "max": 1},
    }
    study = {
        **TINY,
        "data": {"name": "digits", "image_size": 32, "validation": 0.45, "test": 0.3},
        "train": {"epochs": 2, "warmup_epochs": 0, "lr": {"log_uniform": [1e-3, 1e-1]}},
        "ablate": {"draws": 3, "seeds": [0]},
        "claims": [claim],
        "probes": {"tokens": True, "gradients": True},
        "engine": {"workers": 0},
    }
    return stemlab.ablate(study, tmp_path_factory.mktemp("real") / "study")


def test_a_study_that_ran_ends_with_its_report_and_tables(real: stemlab.Study) -> None:
    path = real.folder.path
    page = Page((path / "report.html").read_text())
    assert {"design", "claims", "distributions", "arms", "learning", "draws", "costs", "probes", "stems"} <= set(
        page.ids
    )
    assert page.tags.count("svg") == 7  # distributions, arms, curves, draws, tokens, gradients, stems
    for file in (path / "figures").iterdir():  # for a paper, each by itself
        assert ElementTree.parse(file).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert {"distributions.svg", "arms.svg", "stems.svg"} <= {file.name for file in (path / "figures").iterdir()}
    frame = real.records
    by_draw = frame.pivot(index="draw", columns="arm", values="test_top1")
    (row,) = table(real.folder, "arms").to_dict("records")
    assert row["difference"] == pytest.approx((by_draw["norm=none"] - by_draw["batch"]).mean(), abs=1e-12)
    (claim,) = table(real.folder, "claims").to_dict("records")
    assert claim["estimate"] == pytest.approx(-row["difference"], abs=1e-12)
    costs = table(real.folder, "costs").set_index("arm")
    assert costs.loc["batch", "params"] == frame[frame["arm"] == "batch"]["params"].iloc[0]
    tokens = table(real.folder, "probes")
    assert set(tokens["probe"]) >= {"token_similarity", "stem_grad_max", "body_grad_max"}


# Planted truths


def test_the_answer_names_what_differs_and_by_how_much(tmp_path: Path) -> None:
    study = {**TINY, "ablate": {"draws": 8, "seeds": [0, 1]}}
    folder = plant(tmp_path, study, lambda levels: -0.05 * (levels["norm"] == "none"), noise=0.002)
    page, html, summary = report(folder)
    assert re.search(
        r"Against the baseline “batch” \([\d.]+ % test top-1\), “norm=none” is (4.9|5.0)\d points", summary
    )
    assert "Does the norm matter?" in html
    (row,) = table(folder, "arms").to_dict("records")
    assert row["low"] < -0.05 < row["high"]
    assert row["p_corrected"] < 0.05
    shown = shown_arm(page)
    assert shown[3] == Outcome("test_top1").difference(row["difference"])
    assert shown[4] == f"{100 * row['low']:+.2f} to {100 * row['high']:+.2f}".replace("-", "−")


def test_nothing_is_made_of_noise_or_of_too_few_pairs(tmp_path: Path) -> None:
    _, _, summary = report(plant(tmp_path / "noise", FEW))
    assert "Nothing can be told apart from the baseline “batch”" in summary
    few = {**TINY, "ablate": {"draws": 3, "seeds": [0]}}
    _, _, summary = report(plant(tmp_path / "few", few, lambda levels: -0.5 * (levels["norm"] == "none"), noise=1e-3))
    assert "Nothing can be told apart" in summary
    assert "3 pairs are too few" in summary


def test_a_diverged_run_counts_and_a_failed_one_does_not(tmp_path: Path) -> None:
    def status(arm: str, draw: int, seed: int) -> str:
        return ("diverged" if draw == 1 else "failed" if draw == 2 else "ok") if arm == "norm=none" else "ok"

    folder = plant(tmp_path, FEW, status=status)
    page, html, summary = report(folder)
    assert "1 trial failed" in summary
    (row,) = table(folder, "arms").to_dict("records")
    assert row["n"] == 6
    rates = table(folder, "divergence").set_index("arm")
    assert (rates.loc["norm=none", "diverged"], rates.loc["norm=none", "failed"]) == (1, 1)
    assert list(table(folder, "broken")["message"]) == ["what happened to norm=none"] * 2
    assert "Behind its end a diverged run counts as guessing" in html
    assert "Try what failed again" in html
    assert page.rows[next(i for i, r in enumerate(page.rows) if r[:2] == ["Arm", "Runs"]) + 1][:3] == [
        "batch",
        "7",
        "0",
    ]


@pytest.mark.parametrize(
    ("ablate", "options", "said"),
    [
        ({"draws": 7, "seeds": [0]}, {"keep": lambda *_: False}, "No trial has finished yet."),
        ({"draws": 7, "seeds": [0]}, {"keep": lambda a, d, s: a == "batch" and d == 0}, "No other arm has a"),
        ({"draws": 7, "seeds": [0]}, {"keep": lambda a, d, s: a != "batch"}, "No other arm has a"),
        ({"draws": 7, "seeds": [0]}, {"keep": lambda a, d, s: d < 3 - (a == "batch")}, "5 of 14 planned trials"),
        ({"draws": 7, "seeds": [0]}, {"status": lambda *_: "diverged"}, "Nothing can be told apart"),
        ({"draws": 7, "seeds": [0]}, {"status": lambda *_: "failed"}, "None of 14 trials ended with an outcome"),
        ({"draws": 1, "seeds": [0]}, {}, "one seed alone says nothing of chance"),
        ({"draws": 1, "seeds": [0, 1, 2, 3]}, {}, "4 pairs are too few"),
        ({"draws": 3, "seeds": [0, 1], "outcome": "test_loss"}, {}, "test loss"),
    ],
    ids=[
        "nothing",
        "one trial",
        "no baseline",
        "unfinished",
        "all diverged",
        "all failed",
        "one pair",
        "seeds",
        "loss",
    ],
)
@pytest.mark.filterwarnings("error")
def test_every_state_of_a_study_has_a_report(tmp_path: Path, ablate: Any, options: Any, said: str) -> None:
    folder = plant(tmp_path, {**TINY, "ablate": ablate}, **options)
    page, html, summary = report(folder)
    assert said in summary
    assert not re.search(r"\b(nan|inf|None|NaN)\b(?! of)", re.sub(r"<(svg|pre).*?</\1>", "", html, flags=re.S))
    assert len(page.ids) == len(set(page.ids))
    for name in ("manifest", "stems", "design"):
        assert name in page.ids


def test_a_study_that_is_not_finished_says_how_to_go_on(tmp_path: Path) -> None:
    _, html, _ = report(plant(tmp_path, FEW, keep=lambda arm, draw, seed: draw < 2))
    assert f"stemlab ablate {tmp_path}/study.yaml --out {tmp_path} --resume" in html
    _, html, _ = report(plant(tmp_path, FEW))
    assert "--resume" not in html
    assert f"stemlab ablate {tmp_path}/study.yaml --out {tmp_path} --add-seeds 2" in html
    assert f"stemlab ablate {tmp_path}/study.yaml --out {tmp_path}-again --fresh" in html


def test_copied_trials_are_said_to_be(tmp_path: Path) -> None:
    folder = plant(tmp_path, FEW)
    rows = [json.loads(line) for line in folder.records_file.read_text().splitlines()]
    rows = [{**row, "reused_from": "runs/earlier" if row["proposal"] < 4 else None} for row in rows]
    folder.records_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, html, _ = report(folder)
    assert "4 trials had been run before" in html
    assert "4 from runs/earlier" in html


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    study = {**TWENTY, "ablate": {"draws": 4, "seeds": [0]}}
    gains = {"patch 32": -0.3, "patch 16": -0.1}
    folder = tmp_path_factory.mktemp("twenty")
    return plant(folder, study, lambda levels: gains.get(levels["stem"], 0.0), noise=0.001, probes=True)


def test_twenty_arms_stay_legible(twenty: StudyFolder) -> None:
    page, html, summary = report(twenty)
    assert len(table(twenty, "arms")) == 19
    assert "the other 12 arms" in html
    assert summary.count("4 of 19 arms differ") == 0  # four pairs are too few for any
    assert {"effects", "arms", "draws", "probes", "budgets"} <= set(page.ids)
    # Each of ten stems once, with the two arms that have it.
    (said,) = re.findall(r"<figcaption>(conv 3x3 4/4-8/4 batch.*)</figcaption>", html)
    assert len(said.split(";")) == 10
    assert "patchify 4: patch 4, qkv_bias=true, patch 4, qkv_bias=false;" in said


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    stem = {"choice": {EVIL: {"patch": 4}, "b|c": {"patch": 8}, "$x$": {"patch": 16}}}
    study = {**FEW, "question": EVIL, "model": {**TINY["model"], "stem": stem}}
    folder = plant(tmp_path, study, status=lambda arm, draw, seed: "diverged" if draw == 0 else "ok")
    page, html, summary = report(folder)
    assert "script" not in page.tags
    assert all(load.startswith("#") for load in page.loads)
    assert "<script" not in html + summary
    rows = [line for line in summary.splitlines() if line.startswith("|")]
    assert any(r"b\|c" in row for row in rows)
    cells = {len(re.findall(r"(?<!\\)\|", row)) for row in rows if "b\\|c" in row and "patchify" not in row}
    assert cells <= {len(re.findall(r"\|", row)) for row in rows if set(row) <= set("|:- ")}
    for file in (folder.path / "tables").glob("*.tex"):
        balanced(file.read_text())


def balanced(text: str) -> None:
    """Check that a LaTeX table has its groups closed, as many cells in each row, and no sign with a meaning left."""
    plain = re.sub(r"\\[\\{}&%$#_]", "", text.replace(r"\\" + "\n", "\n"))
    depth = 0
    for sign in plain:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert columns
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(columns[1]) - 1}
    for row in rows:
        assert not re.search(r"(?<!\\)[#%_^~<>|]", row)
        assert len(re.findall(r"(?<!\\)\$", row)) % 2 == 0
    assert re.findall(r"\\begin\{(\w+)\}", text) == ["table", "tabular"]


def test_latex_is_what_the_page_shows(tmp_path: Path) -> None:
    folder = plant(tmp_path, FEW)
    page, _, _ = report(folder)
    shown = shown_arm(page)
    assert " & ".join(map(escape, shown)) in (folder.path / "tables" / "arms.tex").read_text()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path: Path) -> None:
    folder = plant(tmp_path, FEW)
    report(folder)
    inputs = "\n".join(rf"\input{{tables/{file.name}}}" for file in (folder.path / "tables").glob("*.tex"))
    (tmp_path / "all.tex").write_text(
        rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{inputs}\end{{document}}"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"], cwd=tmp_path, check=False
    )
    assert done.returncode == 0


def test_the_same_records_give_the_same_files(tmp_path: Path) -> None:
    folder = plant(tmp_path, FEW, probes=True)

    def files() -> dict[str, bytes]:
        write(folder)
        found = [folder.path / "report.html", folder.path / "summary.md"]
        found += [file for name in ("tables", "figures") for file in (folder.path / name).iterdir()]
        return {path.name: path.read_bytes() for path in found}

    assert files() == files()


# A browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ITS_OWN = re.compile(r"https?://((clients2|accounts|www|redirector)\.(google\.com|gvt1\.com))/")
"""What a fresh Chromium asks for by itself."""


def browse(file: Path, tmp_path: Path, *options: str) -> tuple[list[str], set[str]]:
    """Open a page in a headless browser; return what its console said, and what was asked for from elsewhere."""
    assert CHROMIUM
    log = tmp_path / "net.json"
    command = [
        *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={log}", *options, file.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    urls = set(re.findall(r'"url":"([^"]+)"', log.read_text()))
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line], {u for u in urls if not ITS_OWN.match(u)}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome is installed")
def test_a_browser_shows_and_prints_the_page_and_asks_for_nothing(real: stemlab.Study, tmp_path: Path) -> None:
    page, pdf, bare = real.folder.path / "report.html", tmp_path / "page.pdf", tmp_path / "bare.html"
    assert browse(page, tmp_path, f"--print-to-pdf={pdf}", "--no-pdf-header-footer") == ([], set())
    # That nothing is asked for is not the doing of its policy alone; and what is asked for would be seen.
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text())
    bare.write_text(text.replace("<main>", '<main><img src="https://elsewhere.example/x.png">'))
    assert browse(bare, tmp_path, "--dump-dom")[1] == {"https://elsewhere.example/x.png"}
    assert pdf.read_bytes().startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes())) > 3


# Figures


def test_looks_differ_in_more_than_colour() -> None:
    arms = [f"arm {n}" for n in range(20)]
    found = looks(arms, ["arm 9", "arm 3", *arms[1:]])
    assert list(found)[:2] == ["arm 0", "arm 1"]
    assert {"arm 0", "arm 9", "arm 3"} <= set(found)
    assert len(found) == MOST
    assert len({look.marker for look in found.values()}) == len({look.colour for look in found.values()}) == MOST
    assert list(looks(arms[:5], [])) == arms[:5]


def line(label: str, y: float) -> Line:
    x = np.arange(3.0)
    return Line(label, x, np.full(3, y), np.full(3, y - 1), np.full(3, y + 1))


def test_lines_point_out_some_arms_and_keep_the_others() -> None:
    arms = [f"arm {n}" for n in range(11)]
    figure = lines([Panel([line(arm, n) for n, arm in enumerate(arms)], "x", "y")], looks(arms, arms[1:]))
    (axes,) = figure.axes
    assert len(axes.lines) == 11
    assert len(axes.collections) == 1  # the baseline's band
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*arms[:8], "the other 3 arms"]
    few = lines([Panel([line(EVIL, 0), line("b", 1)], "x", "y")], looks([EVIL, "b"], []))
    assert len(few.axes[0].collections) == 2
    assert not few.legends[0].get_texts()[0].get_parse_math()


def test_a_forest_fills_what_is_told_apart_and_cuts_what_would_dwarf_the_rest() -> None:
    rows = [
        Estimate("factor"),
        Estimate("told", -2, -3, -1, True),
        Estimate("not", 0.5, -0.5, 1.5),
        Estimate("vague", 1, -1, 2),
        Estimate("wild", 0, -900, 900),
    ]
    (axes,) = forest(rows, "points").axes
    low, high = axes.get_xlim()
    assert -10 < low < -3
    assert 2 < high < 10
    marks = [mark for mark in axes.lines if len(mark.get_xdata()) == 1]
    assert [mark.get_markerfacecolor() for mark in marks[:2]] == [marks[0].get_color(), "white"]
    assert [mark.get_marker() for mark in marks] == ["v", "o", "o", "<", ">", "o"]


def test_a_map_has_a_mark_a_draw_on_one_scale() -> None:
    x = np.array([1e-3, 1e-2, 1e-1])
    arms = [
        Draws("a", x, x, np.array([10.0, 50.0, 20.0]), np.array([True, False, False])),
        Draws("b", x, x, np.array([90.0, 80.0, 70.0]), np.array([False, False, False])),
    ]
    axis = Axis("lr", 1e-3, 1e-1, True)
    figure = maps(arms, axis, axis, "accuracy")
    first, second = figure.axes[:2]
    assert first.collections[0].get_array().tolist() == [10, 50, 20]
    assert first.collections[0].get_clim() == second.collections[0].get_clim() == (10, 90)
    assert np.asarray(first.collections[1].get_offsets()).tolist() == [[1e-3, 1e-3]]
    assert first.get_xscale() == "log"


@pytest.mark.parametrize(
    ("p", "text"), [(0.00012, "< 0.001"), (0.0123, "0.012"), (0.5, "0.5"), (1.0, "1"), (float("nan"), "–")]
)
def test_p_has_two_digits(p: float, text: str) -> None:
    assert p_value(p) == text


def test_differences_are_told_in_points_or_as_losses() -> None:
    accuracy, loss = Outcome("test_top1"), Outcome("test_loss")
    assert (accuracy.value(0.931), accuracy.difference(-0.0421)) == ("93.1", "−4.21")
    assert (loss.value(0.2345), loss.difference(0.01)) == ("0.2345", "+0.0100")
    assert (accuracy.better(0.1), loss.better(0.1)) == ("better", "worse")


def test_every_sign_that_latex_reads_is_escaped() -> None:
    assert escape("a_b 50% & {x} $y$ #1 ~^ <>|\\ −1\nline") == (
        r"a\_b 50\% \& \{x\} \$y\$ \#1 \textasciitilde{}\textasciicircum{} "
        r"\textless{}\textgreater{}\textbar{}\textbackslash{} $-$1 line"
    )
