"""Real ablations through the command line: records, kills, reuse, more seeds, and what is refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml

import stemlab
from stemlab import InfeasibleError, StudyError
from stemlab.running import load_ablation

STEMLAB = str(Path(sys.executable).with_name("stemlab"))
FILE = """
name: tiny
question: Does batch norm matter?
model:
  stem:
    choice:
      conv: {channels: [4, 8], strides: 4, norm: {choice: [batch, none]}}
      patchify: {patch: 16}
  body: {dim: 16, depth: 2, heads: 2, mlp_ratio: 2, class_token: false}
data: {name: digits, image_size: 32, validation: 0.45, test: 0.3}
train: {epochs: 1, batch_size: 64, warmup_epochs: 0, lr: {log_uniform: [1.0e-3, 1.0e-2]}}
ablate: {draws: 2, seeds: [0, 1]}
engine: {workers: 1}
"""
TRIALS = 3 * 2 * 2


def study_file(folder: Path, text: str = FILE) -> Path:
    file = folder / "tiny.yaml"
    file.write_text(text)
    return file


def records(folder: Path) -> list[dict]:
    file = folder / "records.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def essence(folder: Path) -> dict[tuple, tuple]:
    """What must be the same on every run of a study: places, results; not the seconds."""
    found = {
        (record["proposal"], record["seed"]): (
            record["trial"],
            record["status"],
            json.dumps(record["assignment"], sort_keys=True),
            *(record["metrics"][name] for name in ("top1", "loss", "test_top1", "test_loss")),
            json.dumps(record["curve"]),
        )
        for record in records(folder)
    }
    assert len(found) == len(records(folder))
    return found


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    """The study, run to its end."""
    folder = tmp_path_factory.mktemp("unbroken")
    command = [STEMLAB, "ablate", str(study_file(folder)), "--out", str(folder / "study"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    return folder / "study"


def test_an_ablation_trains_every_arm_on_the_same_draws_and_seeds(unbroken):
    rows = records(unbroken)
    assert len(rows) == TRIALS
    study = stemlab.Study(unbroken)
    frame = study.records
    assert set(frame["arm"]) == {"conv, batch", "conv, norm=none", "patchify"}
    assert (frame.groupby("arm").size() == 4).all()
    assert set(frame["seed"]) == {0, 1}
    assert (frame.groupby("draw")["lr"].nunique() == 1).all()
    assert frame["lr"].nunique() == 2
    assert frame["norm"].isna().sum() == 4  # of the patchify arm, which has none
    assert (frame["value"] == frame["test_top1"]).all()
    for row in rows:
        assert row["train"]["lr"] == row["assignment"]["train.lr"]
    printed = json.loads((unbroken.parent / "stdout").read_text())
    assert {line["arm"] for line in printed["comparison"]} == {"conv, norm=none", "patchify"}
    best = frame.groupby("arm")["top1"].mean().idxmax()
    assert study.best.digest in {stemlab.load(row["model"]).digest for row in rows}
    inside = frame[frame["arm"] == best]["proposal"]
    assert printed["best"] in [row["model"] for row in rows if row["proposal"] in set(inside)]


def test_the_numbers_of_the_report_follow_from_the_records(unbroken):
    """Recomputed by plain numpy, from nothing but records.jsonl and the arms' place in the design."""
    rows = records(unbroken)
    arms = ["conv, batch", "conv, norm=none", "patchify"]  # proposal = draw * arms + arm
    seen = np.full((2, 3, 2), np.nan)  # draw, arm, seed
    for row in rows:
        seen[row["proposal"] // 3, row["proposal"] % 3, row["seed"]] = row["metrics"]["test_top1"]
    draws = seen.mean(axis=2)

    table = pd.read_csv(unbroken / "tables" / "arms.csv").set_index("arm")
    for arm in (1, 2):
        difference = draws[:, arm] - draws[:, 0]
        assert table["mean"][arms[arm]] == pytest.approx(draws[:, arm].mean())
        assert table["difference"][arms[arm]] == pytest.approx(difference.mean())
        assert table["better"][arms[arm]] == pytest.approx(np.mean((difference > 0) + 0.5 * (difference == 0)))
        assert table["low"][arms[arm]] <= difference.mean() <= table["high"][arms[arm]]
    effects = pd.read_csv(unbroken / "tables" / "effects.csv").set_index(["factor", "level"])["difference"]
    assert effects["norm", "none"] == pytest.approx((draws[:, 1] - draws[:, 0]).mean())
    assert effects["stem", "patchify"] == pytest.approx((draws[:, 2] - draws[:, :2].mean(axis=1)).mean())
    areas = pd.read_csv(unbroken / "tables" / "distributions.csv").set_index("arm")["area"]
    # The area between two error distributions up to the worst error is the difference of mean errors.
    assert areas["patchify"] == pytest.approx((draws[:, 2] - draws[:, 0]).mean())
    curves = stemlab.Study(unbroken).edf().frame
    for arm, steps in curves.groupby("arm"):
        errors = 1 - draws[:, arms.index(arm)]
        for error, fraction in zip(steps["error"], steps["fraction"], strict=True):
            assert fraction == np.mean(errors <= error + 1e-12)
    costs = pd.read_csv(unbroken / "tables" / "costs.csv").set_index("arm")
    for row in rows:
        assert costs["flops"][arms[row["proposal"] % 3]] == row["cost"]["flops"]


def test_python_gives_the_same_records_as_the_command_line(unbroken, tmp_path):
    study = stemlab.ablate(yaml.safe_load(FILE), tmp_path / "study", changes=["engine.workers=0"])
    assert essence(study.folder.path) == essence(unbroken)


@pytest.mark.slow
@pytest.mark.parametrize(("after", "number"), [(0, signal.SIGKILL), (5, signal.SIGKILL), (3, signal.SIGINT)])
def test_a_study_stopped_at_any_moment_goes_on_to_the_same_records(unbroken, tmp_path, cli, after, number):
    file, folder = study_file(tmp_path), tmp_path / "study"
    process = subprocess.Popen(
        [STEMLAB, "ablate", str(file), "--out", str(folder)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    end = time.monotonic() + 120
    while not folder.exists() or len(records(folder)) < after:
        assert time.monotonic() < end
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert f"stemlab ablate {file} --out {folder} --resume" in errors
    done = cli("ablate", file, "--out", folder, "--resume")
    assert done.returncode == 0, done.stderr
    assert essence(folder) == essence(unbroken)


def test_a_trial_that_a_study_beside_it_has_on_record_is_not_trained_again(unbroken, cli):
    text = FILE.replace("[batch, none]", "[batch, layer]").replace("draws: 2", "draws: 3")
    file = study_file(unbroken.parent, text.replace("name: tiny", "name: wider"))
    done = cli("ablate", file, "--out", unbroken.parent / "wider")
    assert done.returncode == 0, done.stderr
    rows = records(unbroken.parent / "wider")
    reused = [row for row in rows if row["reused_from"]]
    assert len(rows) == 3 * 3 * 2
    assert len(reused) == 2 * 2 * 2  # conv with batch norm, and patchify
    assert done.stderr.count(f"is taken from {unbroken}") == len(reused)
    first = {row["trial"]: row for row in records(unbroken)}
    for row in reused:
        assert row["metrics"] == first[row["trial"]]["metrics"]
    assert "8 trials had been run before" in (unbroken.parent / "wider" / "report.html").read_text()

    changes = ["engine.workers=0", "ablate.draws=1", "ablate.seeds=[0]"]
    fresh = stemlab.ablate(file, unbroken.parent / "fresh", changes=changes, reuse=False)
    assert fresh.records["reused_from"].isna().all()


def test_records_made_under_other_conditions_are_not_reused(unbroken, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("study.yaml", "records.jsonl"):
        (other / name).write_text((unbroken / name).read_text())
    manifest = json.loads((unbroken / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "trials_on": "4 CPU threads"}))
    study = yaml.safe_load(FILE) | {"ablate": {"seeds": [0]}}
    made = stemlab.ablate(study, tmp_path / "study", changes=["engine.workers=0"])
    assert made.records["reused_from"].isna().all()


@pytest.mark.slow
def test_more_seeds_extend_a_study(unbroken, tmp_path, cli):
    file, folder = study_file(tmp_path), tmp_path / "study"
    folder.mkdir()
    for name in ("study.yaml", "records.jsonl", "manifest.json"):
        (folder / name).write_text((unbroken / name).read_text())
    done = cli("ablate", file, "--out", folder, "--add-seeds", 1)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((folder / "study.yaml").read_text())["ablate"]["seeds"] == [0, 1, 2]
    assert len(records(folder)) == 3 * 2 * 3
    assert essence(unbroken).items() <= essence(folder).items()
    # The file that it came from still goes with it.
    stemlab.ablate(file, folder, resume=True, changes=["engine.workers=1"])
    assert len(records(folder)) == 3 * 2 * 3


def test_a_dry_run_shows_arms_costs_and_time_and_trains_nothing(cli, tmp_path):
    done = cli("ablate", study_file(tmp_path), "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (len(facts["arms"]), facts["draws"], facts["seeds"], facts["trials"]) == (3, 2, 2, TRIALS)
    for arm in facts["arms"]:
        assert arm["flops"] > 0
        assert arm["seconds"] > 0
    assert facts["seconds"] == pytest.approx(sum(arm["seconds"] for arm in facts["arms"]) * 4 / facts["at_a_time"])
    assert not (tmp_path / "runs").exists()


def test_a_run_that_diverges_is_a_result(tmp_path):
    study = yaml.safe_load(FILE)
    study["train"] |= {"optimizer": "sgd", "lr": {"choice": {"sane": 0.01, "wild": 1.0e6}}}
    study["ablate"] = {"seeds": [0, 1]}
    study["model"]["stem"] = {"patch": 16}
    made = stemlab.ablate(study, tmp_path / "study", changes=["engine.workers=0"])
    wild = made.records[made.records["arm"] == "wild"]
    assert list(wild["status"]) == ["diverged", "diverged"]
    assert list(wild["value"]) == [0.1, 0.1]
    assert list(wild["error"]) == [float("inf")] * 2
    assert made.best.canonical() == stemlab.load(made.trials[0].model).canonical()
    rates = made.divergence().frame.set_index("arm")["rate"]
    assert rates["wild"] == 1
    assert rates["sane"] == 0


def test_results_can_be_asked_for_by_factor(unbroken):
    study = stemlab.Study(unbroken)
    by_norm = study.compare("norm").frame
    frame = study.records
    means = frame.groupby(["draw", "norm"])["value"].mean().unstack()
    assert by_norm["difference"].item() == pytest.approx((means["none"] - means["batch"]).mean())
    assert set(study.edf(by="stem").frame["stem"]) == {"conv", "patchify"}
    assert isinstance(study.effects().frame, pd.DataFrame)
    assert "norm" in study.compare("norm")._repr_html_()
    with pytest.raises(stemlab.SpecError, match="did you mean 'norm'"):
        study.compare("nrom")


def test_one_file_may_hold_a_search_and_an_ablation(tmp_path):
    both = {**yaml.safe_load(FILE), "search": {"trials": 2}}
    assert load_ablation(both).total == TRIALS
    study = stemlab.search(both, tmp_path / "found", changes=["engine.workers=0"])
    assert len(study.trials) == 2
    with pytest.raises(StudyError, match="this is a search"):
        study.compare("norm")


def test_seeds_are_added_to_a_study_that_is_there_and_the_same(unbroken, tmp_path):
    study = yaml.safe_load(FILE)
    with pytest.raises(StudyError, match="no study to add seeds to"):
        stemlab.ablate(study, tmp_path / "nowhere", add_seeds=1)
    with pytest.raises(StudyError, match="holds another study"):
        stemlab.ablate({**study, "train": {**study["train"], "epochs": 3}}, unbroken, add_seeds=1)
    with pytest.raises(stemlab.SpecError, match="0 or more, got -1"):
        stemlab.ablate(study, unbroken, add_seeds=-1)
    assert len(records(unbroken)) == TRIALS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["ablate.design=fractional"], "needs its resolution"),
        (["ablate.draws=0"], "ablate.draws: must be greater than 0"),
        (["ablate.seeds=[1, 1]"], "seeds must differ"),
        (["ablate.baseline={stem: pathcify}"], "did you mean 'patchify'"),
        (["ablate.outcome=top5"], "did you mean 'top1'"),
        (["ablate.sedes=[0]"], "did you mean 'seeds'"),
        (["claims=[{name: a, says: b, measure: top1, compare: {nrom: [batch, none]}, expect: {min: 0}}]"], "'norm'"),
        (["claims=[{name: a, says: b, measure: tpo1, compare: {norm: [batch, none]}, expect: {min: 0}}]"], "'top1'"),
        (["constraints={params: {max: 9000}}"], "the arm “patchify” cannot be had: 17018 is above max 9000"),
    ],
)
def test_what_cannot_be_right_is_refused_with_its_place(tmp_path, changes, message):
    with pytest.raises(stemlab.SpecError) as caught:
        stemlab.ablate(study_file(tmp_path), tmp_path / "study", changes=changes)
    assert message in str(caught.value)
    assert changes[-1].split("=")[0] in str(caught.value)
    assert not (tmp_path / "study").exists()


def test_the_command_line_says_it_in_one_message(cli, tmp_path):
    done = cli("ablate", study_file(tmp_path), "--set", "ablate.baseline={stem: pathcify}")
    assert done.returncode == 2
    assert "ablate.baseline.stem: 'pathcify' is no level of stem; expected one of conv, patchify" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_an_arm_that_cannot_be_matched_is_named(tmp_path):
    study = yaml.safe_load(FILE)
    study["model"]["match"] = {"reference": {"patch": 16}, "adjust": ["depth"], "tolerance": 0.001}
    with pytest.raises(InfeasibleError, match="the arm “conv, batch” cannot be had"):
        stemlab.ablate(study, tmp_path / "study")
    assert not (tmp_path / "study").exists()
