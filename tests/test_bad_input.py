"""Bad input: the right exit code, one clear message that points at the right line, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import filelock
import psutil
import pytest
from stemlab_cli import main as entry

STUDY = """\
name: tiny
model:
  stem:
    channels: {choice: [[8, 16, 32], [16, 32, 64]]}
    kernels: 3
    strides: 2
    norm: batch
    act: relu
  body:
    dim: 48
    depth: 2
    heads: 3
  match:
    reference: {patch: 8}
    tolerance: 0.02
data:
  name: digits
  image_size: 32
train:
  epochs: 1
  warmup_epochs: 0
  lr: 1.0e-3
constraints:
  params: {max: 2.0e+6}
search:
  tuner: random
  trials: 2
  objective: {maximize: top1}
engine:
  workers: 0
"""

MODEL = """\
stem:
  channels: [8, 16, 32]
  kernels: 3
  strides: 2
  norm: batch
  act: relu
body:
  dim: 48
  depth: 2
  heads: 3
match:
  reference: {patch: 8}
  tolerance: 0.05
image_size: 32
classes: 10
"""


class Result(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Run the command line in this process, in a fresh folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(entry, "_interrupts", 0)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]

    def run(*arguments) -> Result:
        monkeypatch.setattr(sys, "argv", ["stemlab", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            entry.main()
        except SystemExit as end:
            code = end.code or 0
        return Result(code, *capsys.readouterr())

    yield run
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Return all that stands in a folder: path -> content, None for a folder."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_dir() or path.is_file()
    }


def refused(result: Result, *says: str, code: int = 2) -> None:
    """Hold a result to the contract: exit code, stdout empty, one message on stderr that says what it must."""
    assert result.code == code, result
    assert result.out == ""
    assert result.err.startswith("error: "), result.err
    assert len(re.findall("^error: ", result.err, re.MULTILINE)) == 1
    assert "Traceback" not in result.err
    assert len(result.err) < 1500
    for fragment in says:
        assert fragment in result.err


def lines_named(result: Result, file: str) -> list[int]:
    """Return the lines of a file that a message points at."""
    return [int(number) for number in re.findall(rf"(?<![\w./]){re.escape(file)}:(\d+)", result.err)]


class Edit(NamedTuple):
    """A file with one mistake: `line` and `at` are where the message must point."""

    text: str
    line: int
    at: str
    says: tuple[str, ...]


def edit(base: str, name: str, old: str, new: str, at: str, *says: str, near: str | None = None):
    """Return the parameters of a case: `old` becomes `new`, and the message must point at one line.

    That is the line marked #!, else the one that begins with `near`, else the first line of `new`.
    """
    assert base.count(old) == 1
    text = base.replace(old, new)
    rows = text.splitlines()
    wrong = [number for number, row in enumerate(rows, start=1) if "#!" in row or (near and row.startswith(near))]
    line = wrong[0] if wrong else base[: base.index(old)].count("\n") + 1
    return pytest.param(Edit(text, line, at, says), id=name)


def study(name: str, old: str, new: str, at: str, *says: str, near: str | None = None):
    """Return a study file with one mistake."""
    return edit(STUDY, name, old, new, at, *says, near=near)


def model(name: str, old: str, new: str, at: str, *says: str, near: str | None = None):
    """Return a model file with one mistake."""
    return edit(MODEL, name, old, new, at, *says, near=near)


def layers(name: str, *rows: str, at: str, says: tuple[str, ...]):
    """Return a model file whose stem is a list of layers, one a line."""
    stem = ("stem:\n  layers:\n" if rows else "stem:\n  layers: []  #!\n") + "".join(f"  - {row}\n" for row in rows)
    return edit(MODEL, name, MODEL[: MODEL.index("body:")], stem, at, *says)


CHANNELS = "    channels: {choice: [[8, 16, 32], [16, 32, 64]]}"

STUDIES = [
    # Names that do not exist, at every level.
    study("field-top", "engine:", "engin:", "engin", "unknown field 'engin'", "did you mean 'engine'?"),
    study("field-model", "  body:", "  bodi:", "model.bodi", "unknown field 'bodi'", "did you mean 'body'?"),
    study("field-stem", "    kernels: 3", "    kernel: 3", "model.stem.kernel", "'kernel'", "did you mean 'kernels'?"),
    study("field-body", "    depth: 2", "    dept: 2", "model.body.dept", "'dept'", "did you mean 'depth'?"),
    study(
        "field-match", "    tolerance:", "    tolerence:", "model.match.tolerence", "'tolerence'", "mean 'tolerance'?"
    ),
    study("field-data", "  image_size: 32", "  imagesize: 32", "data.imagesize", "'imagesize'", "mean 'image_size'?"),
    study("field-train", "  epochs: 1", "  epoch: 1", "train.epoch", "unknown field 'epoch'", "did you mean 'epochs'?"),
    study("field-search", "  trials: 2", "  trails: 2", "search.trails", "'trails'", "did you mean 'trials'?"),
    study("field-engine", "  workers: 0", "  worker: 0", "engine.worker", "'worker'", "did you mean 'workers'?"),
    study(
        "field-objective",
        "  objective: {maximize: top1}",
        "  objective:\n    maximise: top1  #!",
        "search.objective.maximise",
        "unknown field 'maximise'",
        "did you mean 'maximize'?",
    ),
    study("field-bound", "{max: 2.0e+6}", "{maxx: 2.0e+6}", "constraints.params.maxx", "'maxx'", "mean 'max'?"),
    study(
        "field-norm",
        "    norm: batch",
        "    norm:\n      kind: group\n      group: 4  #!",
        "model.stem.norm.group",
        "unknown field 'group'",
        "did you mean 'groups'?",
    ),
    study(
        "form-stem", CHANNELS, "    chanels: [8, 16, 32]", "model.stem.chanels", "'chanels'", "did you mean 'channels'?"
    ),
    study("constraint-name", "  params:", "  parms:", "constraints.parms", "'parms'", "did you mean 'params'?"),
    study("norm", "    norm: batch", "    norm: bacth", "model.stem.norm", "'bacth'", "layer", "mean 'batch'?"),
    study("act", "    act: relu", "    act: rellu", "model.stem.act", "'rellu'", "gelu", "did you mean 'relu'?"),
    study("zoo-stem", "reference: {patch: 8}", "reference: vit_c_4g", "model.match.reference", "mean 'vit_c_4gf'?"),
    study("data-set", "  name: digits", "  name: digit", "data.name", "'digit'", "did you mean 'digits'?"),
    study("optimizer", "  lr: 1.0e-3", "  optimizer: adamv", "train.optimizer", "'adamv'", "sgd", "did you mean 'adam"),
    study("schedule", "  lr: 1.0e-3", "  schedule: cosin", "train.schedule", "'cosin'", "did you mean 'cosine'?"),
    study("precision", "  lr: 1.0e-3", "  precision: fp8", "train.precision", "'fp8'", "fp32, tf32, bf16, fp16"),
    study("tuner", "  tuner: random", "  tuner: randon", "search.tuner", "'randon'", "tpe", "mean 'random'?"),
    study("tuner-anneal", "  tuner: random", "  tuner: anneal", "search.tuner", "'anneal'", "hyperopt", "evolution"),
    study("tuner-smac", "  tuner: random", "  tuner: smac", "search.tuner", "'smac'", "does not run", "tpe"),
    study(
        "metric",
        "  objective: {maximize: top1}",
        "  objective: {maximize: top2}",
        "search.objective.maximize",
        "'top2'",
        "one of top1, top1_error, loss",
        "did you mean 'top1'?",
    ),
    study(
        "match-metric",
        "    tolerance: 0.02",
        "    metric: flop",
        "model.match.metric",
        "'flop'",
        "flops, params, activations",
        "did you mean 'flops'?",
    ),
    study("adjust", "    tolerance: 0.02", "    adjust: [deph]", "model.match.adjust[0]", "'deph'", "mean 'depth'?"),
    study("engine-kind", "  workers: 0", "  kind: embeded", "engine.kind", "'embeded'", "did you mean 'embedded'?"),
    # Values of the wrong type.
    study("type-name", "name: tiny", "name: 7", "name", "must be text", "got 7"),
    study("type-train", "train:\n  epochs: 1\n  warmup_epochs: 0\n  lr: 1.0e-3", "train: fast", "train", "mapping"),
    study("type-epochs", "  epochs: 1", "  epochs: 1.5", "train.epochs", "whole number", "got 1.5"),
    study("type-epochs-flag", "  epochs: 1", "  epochs: true", "train.epochs", "whole number", "got True"),
    study("type-lr", "  lr: 1.0e-3", "  lr: '1e-3'", "train.lr", "must be a number", "got '1e-3'"),
    study("type-tag", "  lr: 1.0e-3", "  lr: !!python/name:os.system", "train.lr", "cannot be read"),
    study("type-trials", "  trials: 2", "  trials: many", "search.trials", "whole number", "got 'many'"),
    study("type-seeds", "  trials: 2", "  seeds: 3", "search.seeds", "must be a list", "got 3"),
    study(
        "type-options", "  trials: 2", "  tuner_options: fast", "search.tuner_options", "must be a mapping", "'fast'"
    ),
    study("type-data", "data:\n  name: digits\n  image_size: 32", "data: digits", "data", "a mapping", "'digits'"),
    study("type-size", "  image_size: 32", "  image_size: big", "data.image_size", "[height, width]", "'big'"),
    study("type-stem", "    reference: {patch: 8}", "    reference: 8", "model.match.reference", "zoo", "got 8"),
    study("type-flag", "    depth: 2", "    depth: 2\n    qkv_bias: 1  #!", "model.body.qkv_bias", "true or false"),
    study("type-bound", "  params: {max: 2.0e+6}", "  params: 2.0e+6", "constraints.params", "a mapping", "2000000.0"),
    study("hole-in-search", "  trials: 2", "  trials: {choice: [1, 2]}", "search.trials", "whole number", "choice"),
    study(
        "missing-body",
        STUDY[STUDY.index("  body:") : STUDY.index("  match:")],
        "",
        "model",
        "missing field 'body'",
        near="model:",
    ),
    # Numbers out of range.
    study("lr-negative", "  lr: 1.0e-3", "  lr: -1.0e-3", "train.lr", "greater than 0", "got -0.001"),
    study("lr-nan", "  lr: 1.0e-3", "  lr: .nan", "train.lr", "finite number", "got nan"),
    study("lr-inf", "  lr: 1.0e-3", "  lr: 1.0e+999", "train.lr", "finite number", "got inf"),
    study("epochs-zero", "  epochs: 1", "  epochs: 0", "train.epochs", "greater than 0", "got 0"),
    study("warmup", "  warmup_epochs: 0", "  warmup_epochs: 1", "train.warmup_epochs", "(=1)", "less than epochs (=1)"),
    study("min-lr", "  lr: 1.0e-3", "  lr: 1.0e-3\n  min_lr: 0.1  #!", "train.min_lr", "(=0.1)", "exceed lr (=0.001)"),
    study("momentum", "  lr: 1.0e-3", "  momentum: 1.0", "train.momentum", "less than 1", "got 1.0"),
    study("batch", "  lr: 1.0e-3", "  batch_size: -4", "train.batch_size", "greater than 0", "got -4"),
    study("tolerance", "tolerance: 0.02", "tolerance: 0", "model.match.tolerance", "greater than 0", "got 0"),
    study("tolerance-high", "tolerance: 0.02", "tolerance: 1.5", "model.match.tolerance", "less than 1", "got 1.5"),
    study("trials-zero", "  trials: 2", "  trials: 0", "search.trials", "greater than 0", "got 0"),
    study("concurrency", "  trials: 2", "  concurrency: 0", "search.concurrency", "greater than 0", "got 0"),
    study("workers", "  workers: 0", "  workers: -1", "engine.workers", "greater than or equal to 0", "got -1"),
    study("threads", "  workers: 0", "  threads: 0", "engine.threads", "greater than 0", "got 0"),
    study("gpus-none", "  workers: 0", "  gpus: []", "engine.gpus", "at least 1 value"),
    study(
        "gpus-shared",
        "  workers: 0",
        "  gpus_per_trial: 2\n  trials_per_gpu: 2  #!",
        "engine.trials_per_gpu",
        "trials_per_gpu must be 1",
    ),
    study("gpus-twice", "  workers: 0", "  gpus: [0, 0]", "engine.gpus", "must differ", "[0, 0]"),
    study("depth-huge", "    depth: 2", f"    depth: {10**30}", "model.body.depth", str(10**30)),
    study(
        "dim-huge",
        "    dim: 48\n    depth: 2\n    heads: 3",
        f"    dim: {3 * 10**400}\n    depth: 2\n    heads: 3",
        "model.body.dim",
        "0000",
    ),
    study("digits", "  epochs: 1", f"  epochs: {'1' * 5000}", "train.epochs", "111"),
    study("long-value", "  image_size: 32", f"  image_size: {[1] * 2000}", "data.image_size", "[height, width]"),
    study("seeds-none", "  trials: 2", "  seeds: []", "search.seeds", "at least 1 value"),
    study("seeds-twice", "  trials: 2", "  seeds: [0, 1, 0]", "search.seeds", "must differ", "[0, 1, 0]"),
    study("seed-negative", "  trials: 2", "  seeds: [0, -1]", "search.seeds[1]", "greater than or equal to 0", "-1"),
    study("seed-huge", "  trials: 2", f"  seeds: [{10**30}]", "search.seeds[0]", str(10**30)),
    study("split-seed-huge", "  image_size: 32", f"  split_seed: {10**12}", "data.split_seed", str(10**12)),
    study("shares", "  image_size: 32", "  validation: 0.5\n  test: 0.5", "data", "test (=1)", near="data:"),
    study("share-zero", "  image_size: 32", "  validation: 0.0", "data.validation", "greater than 0", "got 0.0"),
    study("share-empty", "  image_size: 32", "  validation: 0.001", "data.validation", "0.001"),
    study("size-zero", "  image_size: 32", "  image_size: 0", "data.image_size", "at least 1", "got 0"),
    study("size-three", "  image_size: 32", "  image_size: [32, 32, 3]", "data.image_size", "[height, width]"),
    study("bound-empty", "{max: 2.0e+6}", "{}", "constraints.params", "min, max or both"),
    study("bound-order", "{max: 2.0e+6}", "{min: 3, max: 2}", "constraints.params", "min (=3)", "max (=2)"),
    study("bound-nan", "{max: 2.0e+6}", "{max: .nan}", "constraints.params.max", "finite number", "nan"),
    study("objective-both", "{maximize: top1}", "{maximize: top1, minimize: loss}", "search.objective", "exactly one"),
    study("objective-none", "{maximize: top1}", "{}", "search.objective", "exactly one of maximize and minimize"),
    study("name-path", "name: tiny", "name: ../x", "name", "'../x'"),
    study("name-absolute", "name: tiny", "name: /etc/x", "name", "'/etc/x'"),
    # Options of tuners: known before anything runs.
    study(
        "tuner-option",
        "  tuner: random",
        "  tuner: tpe\n  tuner_options: {gama: 1}  #!",
        "search.tuner_options.gama",
        "gama",
    ),
    study(
        "tuner-option-type",
        "  tuner: random",
        "  tuner: tpe\n  tuner_options: {n_startup_jobs: few}  #!",
        "search.tuner_options.n_startup_jobs",
        "few",
    ),
    study(
        "tuner-option-number",
        "  tuner: random",
        "  tuner: tpe\n  tuner_options: {gamma: -1}  #!",
        "search.tuner_options.gamma",
        "gamma",
        "-1",
    ),
    study(
        "tuner-option-population",
        "  tuner: random",
        "  tuner: evolution\n  tuner_options: {population_size: few}  #!",
        "search.tuner_options.population_size",
        "few",
    ),
    study(
        "tuner-option-range",
        "  tuner: random",
        "  tuner: evolution\n  tuner_options: {population_size: 0}  #!",
        "search.tuner_options.population_size",
        "population_size",
        "0",
    ),
    study(
        "tuner-seed-range",
        "  tuner: random",
        f"  tuner: evolution\n  tuner_seed: {10**12}  #!",
        "search.tuner_seed",
        str(10**12),
    ),
    # Values that do not go together.
    study("heads", "    heads: 3", "    heads: 5", "model.body.heads", "dim (=48)", "divisible by heads (=5)"),
    study(
        "pool",
        "    depth: 2",
        "    depth: 2\n    class_token: false\n    pool: token  #!",
        "model.body.pool",
        "class_token",
        "use pool: avg",
    ),
    study(
        "image-size-contradicts",
        "  body:",
        "  image_size: 64\n  body:",
        "model.image_size",
        "64",
        "differs",
        "32",
        "leave it out",
    ),
    study("classes-contradict", "  body:", "  classes: 100\n  body:", "model.classes", "100", "differs", "10"),
    # What every filling gets wrong is pointed at as if there were no hole.
    study("columns", "    kernels: 3", "    kernels: [3, 3]", "model.stem.kernels", "2 values for 3 layers"),
    study(
        "patch-divides", "    reference: {patch: 8}", "    reference: {patch: 5}", "model.match.reference", "5", "32"
    ),
    study(
        "no-hole",
        f"{CHANNELS}\n    kernels: 3\n    strides: 2",
        "    channels: [8, 16]\n    kernels: 3\n    strides: 3",
        "model.stem",
        "total stride (=9)",
        "27 or 36",
        near="  stem:",
    ),
    # Holes.
    study("choice-empty", CHANNELS, "    channels: {choice: []}", "model.stem.channels.choice", "at least one option"),
    study("choice-scalar", "    norm: batch", "    norm: {choice: batch}", "model.stem.norm.choice", "list", "'batch'"),
    study("choice-twice", "    kernels: 3", "    kernels: {choice: [3, 5, 3]}", "model.stem.kernels.choice", "3 twice"),
    study("hole-order", "    depth: 2", "    depth: {int: [3, 1]}", "model.body.depth.int", "low <= high", "[3, 1]"),
    study("hole-floats", "    depth: 2", "    depth: {int: [1, 2.5]}", "model.body.depth.int", "whole", "[1, 2.5]"),
    study("hole-arity", "  lr: 1.0e-3", "  lr: {uniform: [1.0e-3]}", "train.lr.uniform", "two numbers", "[0.001]"),
    study("hole-arity-3", "  lr: 1.0e-3", "  lr: {uniform: [1, 2, 3]}", "train.lr.uniform", "two numbers"),
    study("hole-text", "  lr: 1.0e-3", "  lr: {uniform: [low, high]}", "train.lr.uniform", "two numbers", "'low'"),
    study("hole-inf", "  lr: 1.0e-3", "  lr: {uniform: [0, .inf]}", "train.lr.uniform", "finite", "inf"),
    study("hole-log-zero", "  lr: 1.0e-3", "  lr: {log_uniform: [0, 1]}", "train.lr.log_uniform", "low > 0", "got 0"),
    study("hole-range", "  lr: 1.0e-3", "  lr: {uniform: [-1, 1]}", "train.lr", "greater than 0", "-1"),
    study(
        "hole-kind",
        "  lr: 1.0e-3",
        "  lr: {log_unifrom: [1, 2]}",
        "train.lr.log_unifrom",
        "did you mean 'log_uniform'?",
    ),
    study("hole-kind-norm", "    norm: batch", "    norm: {choise: [off]}", "model.stem.norm.choise", "mean 'choice'?"),
    study("hole-two-keys", "  lr: 1.0e-3", "  lr: {choice: [1, 2], default: 1}", "train.lr", "must be a number"),
    study(
        "option-name",
        "    norm: batch",
        "    norm:\n      choice:\n      - batch\n      - layr  #!\n      - none",
        "model.stem.norm.choice[1]",
        "unknown norm 'layr'",
        "did you mean 'layer'?",
    ),
    study(
        "option-field",
        "    act: relu",
        "    act:\n      choice:\n      - relu\n      - kind: scaled_relu\n        lern: true  #!",
        "model.stem.act.choice[1].lern",
        "'lern'",
        "did you mean 'learn'?",
    ),
    study(
        "option-type",
        "  epochs: 1",
        "  epochs:\n    choice:\n    - 1\n    - 2\n    - three  #!",
        "train.epochs.choice[2]",
        "whole number",
        "'three'",
    ),
    study(
        "option-nested",
        "    act: relu",
        "    act:\n      choice:\n      - relu\n      - choice:\n        - gelu\n        - slu  #!",
        "model.stem.act.choice[1].choice[1]",
        "unknown activation 'slu'",
        "did you mean 'silu'?",
    ),
    study(
        "option-nested-hole",
        "    act: relu",
        "    act:\n      choice:\n      - relu\n      - kind: leaky_relu\n        negative_slope: {int: [1, 0]}  #!",
        "model.stem.act.choice[1].negative_slope.int",
        "low <= high",
        "[1, 0]",
    ),
    study(
        "option-inside-list",
        CHANNELS,
        "    channels:\n    - 8\n    - 16\n    - choice:\n      - 32\n      - -32  #!",
        "model.stem.channels[2].choice[1]",
        "positive whole number",
        "-32",
    ),
    # Spaces without a point.
    study("empty-bound", "{max: 2.0e+6}", "{max: 10}", "constraints.params", "none of 2 points", "above max 10"),
    study(
        "empty-bounds",
        "  params: {max: 2.0e+6}",
        "  stem_flops_share: {min: 0.99}",
        "constraints.stem_flops_share",
        "none of 2 points",
        "below min 0.99",
    ),
    # YAML.
    study("yaml", "  lr: 1.0e-3", "  lr: [1, 2\nconstraint: 3  #!", "", "not valid YAML"),
    study("yaml-tab", "  lr: 1.0e-3", "\tlr: 1.0e-3", "", "not valid YAML"),
    study("yaml-anchor", "  lr: 1.0e-3", "  lr: *nowhere", "", "not valid YAML", "alias"),
    study("yaml-two", "search:", "---\nsearch:", "", "not valid YAML", "another document"),
    study("yaml-key", "  lr: 1.0e-3", "  [lr]: 1.0e-3", "train", "a key must be a plain name"),
    study("key-twice", "  lr: 1.0e-3", "  lr: 1.0e-3\n  epochs: 2  #!", "train.epochs", "'epochs' is written twice"),
    study("alias-loop", "    act: relu", "    act: &a\n      kind: *a  #!", "model.stem.act.kind", "contains itself"),
]


def test_the_same_size_written_as_a_pair_is_no_contradiction(call, tmp_path):
    (tmp_path / "good.yaml").write_text(STUDY.replace("  body:", "  image_size: [32, 32]\n  body:"))
    assert call("search", "good.yaml", "--dry-run").code == 0


@pytest.mark.parametrize("case", STUDIES)
def test_search_refuses(call, tmp_path, case):
    (tmp_path / "bad.yaml").write_text(case.text)
    before = snapshot(tmp_path)
    place = f"error: bad.yaml:{case.line}: " + (f"{case.at}: " if case.at else "")
    result = call("search", "bad.yaml", "--out", "out")
    refused(result, *case.says)
    assert result.err.startswith(place), result.err
    assert lines_named(result, "bad.yaml") == [case.line]
    assert snapshot(tmp_path) == before
    assert call("search", "bad.yaml", "--dry-run") == result
    assert call("search", "bad.yaml", "--dry-run", "--json") == result


CONV = "{op: conv, channels: 8, kernel: 3, stride: 2, norm: batch, act: relu}"
END = "{op: conv, channels: dim, kernel: 1}"

MODELS = [
    model("divide", "image_size: 32", "image_size: 30", "stem", "total stride (=8)", "(=30)", "24 or 32", near="stem:"),
    model("divide-patch", "reference: {patch: 8}", "reference: {patch: 7}", "match.reference", "(=7)", "28 or 35"),
    model(
        "columns", "  strides: 2", "  strides: [2, 2, 2, 1]", "stem.strides", "4 values for 3 layers", "one for each"
    ),
    model("columns-norm", "  norm: batch", "  norm: [batch]", "stem.norm", "1 values for 3 layers"),
    model("column-item", "  act: relu", "  act: [relu, rellu, relu]", "stem.act[1]", "'rellu'", "mean 'relu'?"),
    model("column-pair", "  kernels: 3", "  kernels: [3, 3, [3]]", "stem.kernels[2]", "[height, width]", "[3]"),
    model("column-zero", "  strides: 2", "  strides: [2, 0, 2]", "stem.strides[1]", "at least 1", "got 0"),
    model("channels-empty", "  channels: [8, 16, 32]", "  channels: []", "stem.channels", "at least 1 value"),
    model("channels-scalar", "  channels: [8, 16, 32]", "  channels: 8", "stem.channels", "a list", "got 8"),
    model("channels-text", "[8, 16, 32]", "[8, dims, 32]", "stem.channels[1]", "'dim'", "got 'dims'"),
    model(
        "norm-groups", "  norm: batch", "  norm: {kind: group, groups: 5}", "stem", "8 channels", "(=5)", near="stem:"
    ),
    model("norm-parameter", "  norm: batch", "  norm: {kind: layer, groups: 4}", "stem.norm.groups", "kind: group"),
    model("norm-eps", "  norm: batch", "  norm: {kind: layer, eps: 0}", "stem.norm.eps", "greater than 0", "got 0"),
    model("norm-kind", "  norm: batch", "  norm: {kind: grup}", "stem.norm.kind", "'grup'", "did you mean 'group'?"),
    model("norm-none", "  norm: batch", "  norm: {eps: 1.0e-5}", "stem.norm", "missing field 'kind'"),
    model("act-parameter", "  act: relu", "  act: {kind: relu, scale: 2}", "stem.act.scale", "scale", "of relu"),
    model("act-list", "  act: relu", "  act: 3", "stem.act", "name of an activation", "got 3"),
    model("order", "  norm: batch", "  order: norm-conv-act", "stem.order", "'norm-conv-act'", "conv-norm-act"),
    model(
        "width", "  norm: batch", "  project: false", "stem", "32 channels", "dim is 48", "project: true", near="stem:"
    ),
    model("heads", "  heads: 3", "  heads: 7", "body.heads", "dim (=48)", "heads (=7)"),
    model("mlp", "  heads: 3", "  heads: 3\n  mlp_ratio: 0.001  #!", "body.mlp_ratio", "(=0.001)", "empty MLP"),
    model("pool", "  heads: 3", "  heads: 3\n  pool: mean  #!", "body.pool", "'mean'", "one of token, avg"),
    model("body", MODEL[MODEL.index("body:") : MODEL.index("match:")], "body: vit_smal_patch16_224\n", "body", "small"),
    model(
        "body-list", MODEL[MODEL.index("body:") : MODEL.index("match:")], "body: [48]\n", "body", "a mapping", "[48]"
    ),
    model("stem-forms", "  norm: batch", "  patch: 8", "stem.channels", "'channels'", "patch", near="  channels:"),
    model(
        "stem-zoo",
        MODEL[: MODEL.index("body:")],
        "stem: vit_c_4g\n",
        "stem",
        "no stem named 'vit_c_4g'",
        "did you mean 'vit_c_4gf'?",
    ),
    model("classes", "classes: 10", "classes: 0", "classes", "greater than 0", "got 0"),
    model("hole", "classes: 10", "classes: {choice: [10, 20]}", "classes", "whole number", "{'choice': [10, 20]}"),
    model(
        "match-depth",
        "  tolerance: 0.05",
        "  adjust: [depth]\n  tolerance: 0.0001",
        "match",
        "no body with another depth",
        "within 0.01%",
        "the nearest",
        "add mlp",
        near="match:",
    ),
    model(
        "match-stem",
        "  channels: [8, 16, 32]",
        "  channels: [512, 512, 512]",
        "match",
        "no body",
        "the stem alone has",
        near="match:",
    ),
    layers("op", CONV, "{op: cnov, channels: 8, kernel: 3}  #!", END, at="stem.layers[1]", says=("mean 'conv'?",)),
    layers("op-missing", "{channels: 8, kernel: 3}  #!", END, at="stem.layers[0]", says=("missing field 'op'",)),
    layers("kernel-missing", "{op: conv, channels: 8}  #!", END, at="stem.layers[0]", says=("missing field 'kernel'",)),
    layers(
        "layer-field",
        CONV,
        "{op: conv, channels: 8, kernel: 3, strid: 2}  #!",
        END,
        at="stem.layers[1].strid",
        says=("unknown field 'strid'", "did you mean 'stride'?"),
    ),
    layers(
        "pool-kind",
        "{op: pool, kind: maximum, kernel: 3}  #!",
        END,
        at="stem.layers[0].kind",
        says=("'maximum'", "one of max, avg"),
    ),
    layers(
        "pool-padding",
        "{op: pool, kind: max, kernel: 3, padding: 2}  #!",
        END,
        at="stem.layers[0].padding",
        says=("padding (=2)", "half the kernel (=3)"),
    ),
    layers(
        "pool-pad",
        "{op: pool, kind: max, kernel: 2, count_include_pad: true}  #!",
        END,
        at="stem.layers[0].count_include_pad",
        says=("average pooling",),
    ),
    layers(
        "padding",
        "{op: conv, channels: 8, kernel: 3, padding: [1, 2, 3]}  #!",
        END,
        at="stem.layers[0].padding",
        says=("[left, right, top, bottom]", "[1, 2, 3]"),
    ),
    layers(
        "conv-groups-word",
        "{op: conv, channels: 8, kernel: 3, stride: 2, norm: batch}",
        "{op: conv, channels: 8, kernel: 3, groups: dephwise}  #!",
        END,
        at="stem.layers[1].groups",
        says=("mean 'depthwise'?",),
    ),
    layers(
        "conv-groups",
        "{op: conv, channels: 8, kernel: 3, stride: 2, norm: batch}",
        "{op: conv, channels: 12, kernel: 3, groups: 3}  #!",
        END,
        at="stem.layers[1]",
        says=("8", "groups", "3"),
    ),
    layers(
        "conv-norm-groups",
        CONV,
        "{op: pool, kind: max, kernel: 2}",
        "{op: conv, channels: 12, kernel: 3, norm: {kind: group, groups: 5}}  #!",
        END,
        at="stem.layers[2]",
        says=("12 channels", "groups (=5)"),
    ),
    layers(
        "kernel-too-large",
        CONV,
        "{op: conv, channels: 8, kernel: 99, padding: 0}  #!",
        END,
        at="stem.layers[1]",
        says=("99", "16x16", "smaller kernel"),
    ),
    layers(
        "patch-in-list",
        "{op: conv, channels: 8, kernel: 3, stride: 2, padding: 0}",
        "{op: patchify, patch: 2}  #!",
        at="stem.layers[1]",
        says=("patch 2", "15x15"),
    ),
    # Branches, and what is new about layers.
    layers(
        "branch-layer",
        CONV,
        "op: parallel\n    branches:\n    - []\n    - - {op: conv, channels: 8, kernel: 3}\n"
        "      - {op: conv, channels: 8, kernl: 3}  #!",
        END,
        at="stem.layers[1].branches[1][1].kernl",
        says=("unknown field 'kernl'", "did you mean 'kernel'?"),
    ),
    layers(
        "branch-op",
        "op: parallel\n    branches:\n    - []\n    - - {op: conv, channels: 8, kernel: 3}\n      - {op: paralel}  #!",
        END,
        at="stem.layers[0].branches[1][1]",
        says=("unknown value 'paralel'", "did you mean 'parallel'?"),
    ),
    layers(
        "branch-nested",
        "op: parallel\n    branches:\n    - - op: parallel\n        branches:\n        - []\n"
        "        - - {op: act, kind: relu, alpha: 1}  #!\n    - []",
        END,
        at="stem.layers[0].branches[0][0].branches[1][0].alpha",
        says=("alpha is not a parameter of relu",),
    ),
    layers(
        "branch-shape",
        CONV,
        f"op: parallel\n    branches:\n    - []\n    - - {CONV.replace('stride: 2, ', '')}\n"
        "      - {op: conv, channels: 12, kernel: 3, groups: 3}  #!",
        END,
        at="stem.layers[1].branches[1][1]",
        says=("in_channels (=8)", "groups (=3)"),
    ),
    layers(
        "branch-divisible",
        "{op: pad, padding: [0, 0, 0, 1]}",
        "op: parallel\n    merge: concat\n    branches:\n    - - {op: space_to_depth}  #!\n"
        "    - - {op: conv, channels: 8, kernel: 2, stride: 2}",
        END,
        at="stem.layers[1].branches[0][0]",
        says=("33x32", "block 2x2"),
    ),
    layers(
        "branch-one",
        "op: parallel\n    branches: [[]]  #!",
        END,
        at="stem.layers[0].branches",
        says=("at least 2 value", "[[]]"),
    ),
    layers("branch-none", "{op: parallel}  #!", END, at="stem.layers[0]", says=("missing field 'branches'",)),
    layers(
        "branch-mapping",
        "op: parallel\n    branches:\n    - []\n    - {op: norm, kind: batch}  #!",
        END,
        at="stem.layers[0].branches[1]",
        says=("must be a list", "'norm'"),
    ),
    layers(
        "branch-strides",
        f"op: parallel\n    branches:  #!\n    - - {CONV}\n    - - {{op: conv, channels: 8, kernel: 1}}",
        END,
        at="stem.layers[0].branches",
        says=("strides 1x1 and 2x2",),
    ),
    layers(
        "merge",
        "{op: parallel, branches: [[], []], merge: add}  #!",
        END,
        at="stem.layers[0].merge",
        says=("'add'", "one of sum, concat, mul"),
    ),
    layers(
        "merge-maps",
        f"{{op: parallel, branches: [[], [{CONV.replace('stride: 2, ', 'padding: 0, ')}]], merge: concat}}  #!",
        END,
        at="stem.layers[0]",
        says=("3x32x32 and 8x30x30", "cannot be concatenated"),
    ),
    layers(
        "merge-channels",
        f"{{op: parallel, branches: [[], [{CONV.replace('stride: 2, ', '')}]]}}  #!",
        END,
        at="stem.layers[0]",
        says=("3x32x32 and 8x32x32", "no sum"),
    ),
    layers(
        "split-sum",
        CONV,
        "{op: parallel, branches: [[], []], split: [4, 3]}  #!",
        END,
        at="stem.layers[1]",
        says=("[4, 3] makes 7", "8 come in"),
    ),
    layers(
        "split-dim",
        CONV,
        "{op: parallel, branches: [[], []], split: [dim/8, dim/5]}  #!",
        END,
        at="stem.layers[1]",
        says=("dim (=48)", "divisible by 5"),
    ),
    layers(
        "split-equal",
        CONV,
        "{op: parallel, branches: [[], [], []], split: equal}  #!",
        END,
        at="stem.layers[1]",
        says=("8 channels", "equally among 3"),
    ),
    layers(
        "split-count",
        CONV,
        "{op: parallel, branches: [[], []], split: [4, 2, 2]}  #!",
        END,
        at="stem.layers[1].split",
        says=("3 parts for 2 branches",),
    ),
    layers(
        "split-name",
        CONV,
        "{op: parallel, branches: [[], []], split: equel}  #!",
        END,
        at="stem.layers[1].split",
        says=("a list of channels", "did you mean 'equal'?"),
    ),
    layers(
        "split-item",
        CONV,
        "op: parallel\n    branches: [[], []]\n    split:\n    - 4\n    - dims  #!",
        END,
        at="stem.layers[1].split[1]",
        says=("'dim/2', got 'dims'",),
    ),
    layers(
        "part-of-dim",
        CONV,
        "{op: conv, channels: dim/5, kernel: 3}  #!",
        END,
        at="stem.layers[1]",
        says=("dim (=48)", "divisible by 5", "dim/5"),
    ),
    layers(
        "part-huge",
        f"{{op: conv, channels: dim/{'9' * 5000}, kernel: 3}}  #!",
        END,
        at="stem.layers[0].channels",
        says=("a part of it", "dim/999"),
    ),
    *(
        layers(
            f"pool-ceil-{name}",
            f"{{op: pool, kind: max, kernel: 2, padding: {padding}, ceil: true}}  #!",
            END,
            at="stem.layers[0].ceil",
            says=("equal padding on opposite sides",),
        )
        for name, padding in (("tf", "tf_same"), ("same", "same"), ("sides", "[1, 0, 0, 0]"))
    ),
    layers(
        "pool-sides",
        "{op: pool, kind: max, kernel: [3, 2], padding: [1, 2, 0, 0]}  #!",
        END,
        at="stem.layers[0].padding",
        says=("padding (=2)", "half the kernel (=2)"),
    ),
    layers(
        "pool-global",
        "{op: pool, kind: global, kernel: 3}  #!",
        END,
        at="stem.layers[0].kernel",
        says=("no meaning for kind: global",),
    ),
    layers("pool-kernel", "{op: pool, kind: avg}  #!", END, at="stem.layers[0]", says=("missing field 'kernel'",)),
    *(
        layers(
            f"pad-{padding}",
            f"{{op: pad, padding: {padding}}}  #!",
            END,
            at="stem.layers[0].padding",
            says=(f"padding: {padding} needs a kernel",),
        )
        for padding in ("same", "tf_same")
    ),
    layers("pad-negative", "{op: pad, padding: -1}  #!", END, at="stem.layers[0].padding", says=("got -1",)),
    layers(
        "standardize-gamma",
        "{op: conv, channels: 8, kernel: 3, standardize: {gamma: 1.7}}  #!",
        END,
        at="stem.layers[0].standardize.gamma",
        says=("gamma", "gain: true"),
    ),
    layers(
        "standardize-kind",
        "{op: conv, channels: 8, kernel: 3, standardize: weights}  #!",
        END,
        at="stem.layers[0].standardize",
        says=("true, false or a mapping", "'weights'"),
    ),
    layers(
        "standardize-field",
        "{op: conv, channels: 8, kernel: 3, standardize: {epsilon: 1}}  #!",
        END,
        at="stem.layers[0].standardize.epsilon",
        says=("unknown field 'epsilon'", "did you mean 'eps'?"),
    ),
    layers(
        "standardize-one",
        CONV,
        "{op: conv, channels: 8, kernel: 1, groups: depthwise, standardize: true}  #!",
        END,
        at="stem.layers[1]",
        says=("a filter of one weight",),
    ),
    layers(
        "group-of-one",
        CONV,
        "op: parallel\n    merge: mul\n    branches:\n    - []\n    - - {op: pool, kind: global}\n"
        "      - {op: norm, kind: group, groups: 8}  #!",
        END,
        at="stem.layers[1].branches[1][1]",
        says=("a group of one value",),
    ),
    layers(
        "block",
        "{op: conv, channels: 8, kernel: 3, stride: 2, padding: 0}",
        "{op: space_to_depth, block: [2, 1]}  #!",
        END,
        at="stem.layers[1]",
        says=("15x15", "block 2x1"),
    ),
    layers("block-order", "{op: space_to_depth, order: hwc}  #!", END, at="stem.layers[0].order", says=("'h w c'",)),
    layers(
        "act-alpha",
        "{op: act, kind: celu, alpha: 0}  #!",
        END,
        at="stem.layers[0].alpha",
        says=("alpha of celu must not be 0",),
    ),
    layers("act-gain", "{op: act, kind: relu, gain: true}  #!", END, at="stem.layers[0].gain", says=("a number",)),
    model("paddings", "  strides: 2", "  paddings: [1, 1]", "stem.paddings", "2 values for 3 layers"),
    model("paddings-item", "  strides: 2", "  paddings: [1, sme, 1]", "stem.paddings[1]", "'same'", "got 'sme'"),
    layers("layers-empty", at="stem.layers", says=("at least 1 value",)),
    layers("layer-list", CONV, "[conv, 8, 3]  #!", END, at="stem.layers[1]", says=("must be a mapping", "'conv'")),
]


@pytest.mark.parametrize("case", MODELS)
def test_model_refused(call, tmp_path, case):
    (tmp_path / "bad.yaml").write_text(case.text)
    before = snapshot(tmp_path)
    place = f"error: bad.yaml:{case.line}: " + (f"{case.at}: " if case.at else "")
    result = call("cost", "bad.yaml")
    refused(result, *case.says)
    assert result.err.startswith(place), result.err
    assert lines_named(result, "bad.yaml") == [case.line]
    assert call("cost", "bad.yaml", "--json") == result
    assert call("build", "bad.yaml", "--out", "out") == result
    assert snapshot(tmp_path) == before


# Whole files. A line of 0: the message names the file alone, as no line can be to blame.
FILES = [
    ("empty.yaml", b"", 1, ("the file is empty",)),
    ("comment.yaml", b"# nothing\n", 1, ("the file is empty",)),
    ("binary.yaml", bytes(range(256)), 0, ("binary.yaml", "utf-8")),
    ("control.yaml", b"name: x\x00\n", 0, ("not valid YAML",)),
    ("latin.yaml", "name: Stäbe\n".encode("latin-1"), 0, ("utf-8",)),
    ("utf16.yaml", STUDY.encode("utf-16"), 0, ("utf-8",)),
    ("list.yaml", b"- stem\n- body\n", 1, ("expected a mapping", "['stem', 'body']")),
    ("text.yaml", b"vit_c_4gf\n", 1, ("must be a mapping", "'vit_c_4gf'")),
    ("number.yaml", b"3\n", 1, ("expected a mapping", "got 3")),
    ("deep.yaml", b"stem: " + b"[" * 3000 + b"]" * 3000, 1, ("nested more than 100 levels deep",)),
    ("deep.json", b"[" * 100_000 + b"]" * 100_000, 1, ("nested more than 100 levels deep",)),
    (
        "laughs.yaml",
        b"a: &a [1,1,1,1,1,1,1,1,1]\n"
        + b"".join(
            b"%c: &%c [%s]\n" % (new, new, b",".join([b"*%c" % old] * 9))
            for old, new in zip(b"abcdefg", b"bcdefgh", strict=True)
        ),
        1,
        ("more than 200000 values",),
    ),
    ("comma.json", b'{\n"stem": {"patch": 8}\n"classes": 10}\n', 3, ("not valid JSON", "',' delimiter")),
    ("cut.json", b'{\n"stem": {"patch": 8', 2, ("not valid JSON",)),
    ("empty.json", b"", 1, ("empty",)),
    ("quotes.json", b"{'stem': 8}", 1, ("not valid JSON", "double quotes")),
    ("twice.json", b'{\n\t"classes": 10,\n\t"classes": 12\n}\n', 3, ("classes", "written twice")),
    (
        "nan.json",
        b'{\n"stem": {"patch": 8}, "body": "vit_tiny_patch16_224",\n"classes": NaN\n}\n',
        3,
        ("classes: must be a whole number, got nan",),
    ),
    ("value.json", b'{\n"stem": {\n"patch": 0},\n"body": "vit_tiny_patch16_224"}\n', 3, ("stem.patch", "got 0")),
    ("null.json", b"null", 1, ("empty",)),
    (
        "three.yaml",
        b"stem: {patch: 8}\nbody:\n  dim: wide\n  depth: 0\n  heads: 3\n  pool: mean\nclasses: 10\nimage_size: 32\n",
        [3, 4, 6],
        ("body.dim: must be a whole number, got 'wide'", "body.depth", "body.pool", "'mean'"),
    ),
]


@pytest.mark.parametrize(("name", "content", "line", "says"), FILES, ids=[file[0] for file in FILES])
def test_file_refused(call, tmp_path, name, content, line, says):
    (tmp_path / name).write_bytes(content)
    result = call("cost", name)
    refused(result, *says)
    assert result.err.startswith(f"error: {name}:")
    assert lines_named(result, name) == ([] if line == 0 else line if isinstance(line, list) else [line])


def test_very_deep_yaml_does_not_end_the_process(cli, tmp_path):
    (tmp_path / "deep.yaml").write_text("[" * 200_000)
    done = cli("cost", "deep.yaml")
    refused(Result(done.returncode, done.stdout, done.stderr), "deep.yaml", "nested more than 100 levels deep")


COMMANDS = [
    ("file-missing", ("cost", "modle.yaml"), ("modle.yaml: no such file", "did you mean 'model.yaml'?")),
    ("study-missing", ("search", "studi.yaml"), ("studi.yaml: no such file", "did you mean 'study.yaml'?")),
    ("study-folder", ("search", "folder"), ("folder", "directory")),
    ("model-folder", ("cost", "folder"), ("config.json", "no such file")),
    ("model-folder-build", ("build", "folder"), ("config.json", "no such file")),
    ("zoo-cost", ("cost", "vit_c_4g"), ("'vit_c_4g'", "of the zoo", "did you mean 'vit_c_4gf'?")),
    ("zoo-build", ("build", "vit_p_1fg"), ("'vit_p_1fg'", "did you mean 'vit_p_1gf'?")),
    ("zoo-show", ("zoo", "vit_c_36fg"), ("'vit_c_36fg'", "did you mean 'vit_c_36gf'?")),
    ("zoo-json", ("zoo", "nothing", "--json"), ("'nothing'", "`stemlab zoo` lists them")),
    ("second-of-two", ("cost", "model.yaml", "modle.yaml"), ("modle.yaml: no such file",)),
    ("long-name", ("cost", "x" * 300), ("x" * 300,)),
    ("long-file", ("cost", "x" * 300 + ".yaml"), ("x" * 300, "too long")),
    ("below-file", ("cost", "model.yaml/spec.json"), ("model.yaml/spec.json",)),
    ("study-as-model", ("cost", "study.yaml"), ("study.yaml:1", "name", "unknown field 'name'")),
    ("model-as-study", ("search", "model.yaml"), ("model.yaml:1", "stem", "unknown field 'stem'")),
    ("config-without-spec", ("cost", "empty-config"), ("config.json:1", "spec")),
    ("config-list", ("cost", "list-config"), ("config.json:1", "expected a mapping")),
    ("report-no-study", ("report", "folder"), ("folder", "study.yaml", "study")),
    ("report-missing", ("report", "nowhere"), ("nowhere", "study.yaml")),
    ("report-file", ("report", "model.yaml"), ("model.yaml", "study")),
    ("report-list", ("report", "list-study"), ("study.yaml:1", "expected a mapping")),
    ("report-broken", ("report", "broken-study"), ("study.yaml:2", "not valid YAML")),
    ("out-below-file", ("search", "study.yaml", "--out", "model.yaml/out"), ("model.yaml/out", "Not a directory")),
    ("out-is-file", ("search", "study.yaml", "--out", "model.yaml"), ("model.yaml", "File exists")),
    ("out-proc", ("search", "study.yaml", "--out", "/proc/stemlab"), ("/proc/stemlab", "cannot be made")),
    ("engine-nni", ("search", "study.yaml", "--engine", "nnii"), ("engine.kind", "'nnii'", "did you mean 'nni'?")),
    ("engine-typo", ("search", "study.yaml", "--engine", "embeded"), ("'embeded'", "did you mean 'embedded'?")),
    ("out-empty", ("search", "study.yaml", "--out", ""), ("--out",)),
    ("build-seed", ("build", "model.yaml", "--seed", str(10**30)), ("seed", str(10**30))),
    ("trials-zero", ("search", "study.yaml", "--trials", "0"), ("search.trials", "greater than 0", "got 0")),
    ("trials-negative", ("search", "study.yaml", "--trials", "-3"), ("search.trials", "greater than 0", "got -3")),
    ("usage-number", ("search", "study.yaml", "--trials", "many"), ("--trials", "integer")),
    ("usage-option", ("search", "study.yaml", "--trails", "3"), ("--trails", "--trials")),
    ("usage-argument", ("search",), ("Missing argument",)),
    ("usage-command", ("serch", "study.yaml"), ("serch", "search")),
    ("usage-kind", ("schema", "modle"), ("modle", "model")),
]


@pytest.fixture
def workplace(tmp_path):
    """Make a folder with a good study, a good model, and folders that are neither."""
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "model.yaml").write_text(MODEL)
    for name, file, content in (
        ("folder", "notes.txt", "mine"),
        ("empty-config", "config.json", "{}"),
        ("list-config", "config.json", "[]"),
        ("list-study", "study.yaml", "- name\n"),
        ("broken-study", "study.yaml", "name: x\nmodel: ]\n"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(content)
    return tmp_path


@pytest.mark.parametrize(("command", "says"), [case[1:] for case in COMMANDS], ids=[case[0] for case in COMMANDS])
def test_command_refused(call, workplace, command, says):
    before = snapshot(workplace)
    refused(call(*command), *says)
    assert snapshot(workplace) == before


SETS = [
    ("no-equals", "search.trials", ("search.trials", "expected path=value")),
    ("no-path", "=3", ("=3", "expected path=value")),
    ("empty", "", ("expected path=value",)),
    ("no-value", "search.trials=", ("search.trials", "whole number", "got None")),
    ("bad-yaml", "search.seeds=[1", ("search.seeds=[1", "not valid YAML")),
    ("bad-bracket", "search.seeds[=3", ("search.seeds[=3", "expected path=value")),
    ("two-dots", "search..trials=3", ("search..trials=3", "expected path=value")),
    ("field", "search.trails=3", ("search.trails", "unknown field 'trails'", "did you mean 'trials'?")),
    ("section", "serch.trials=3", ("unknown field 'serch'", "did you mean 'search'?")),
    ("new-section-field", "model.stem.projekt=true", ("unknown field 'projekt'", "did you mean 'project'?")),
    ("value", "train.lr=-1", ("train.lr", "greater than 0", "got -1")),
    ("index", "model.stem.channels.choice[7]=[8]", ("there is no model.stem.channels.choice[7]",)),
    ("not-a-list", "model.stem[0]=8", ("there is no model.stem[0]",)),
    ("into-number", "search.trials.more=3", ("there is no search.trials.more",)),
    ("into-list", "model.stem.channels.choice.first=3", ("there is no model.stem.channels.choice.first",)),
    ("null", "train=null", ("train", "must be a mapping", "got None")),
    ("whole", "train=fast", ("train", "a mapping", "'fast'")),
    ("hole", "train.lr={uniform: [2, 1]}", ("train.lr.uniform", "low <= high", "[2, 1]")),
]


@pytest.mark.parametrize(("change", "says"), [case[1:] for case in SETS], ids=[case[0] for case in SETS])
def test_set_refused(call, workplace, change, says):
    before = snapshot(workplace)
    result = call("search", "study.yaml", "--out", "out", "--set", change)
    refused(result, *says)
    assert result.err.startswith(f"error: --set {change}:"), result.err
    assert snapshot(workplace) == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("engine.gpus_per_trial=1", ("engine.gpus_per_trial (=1)", "0 GPUs", "0 for the CPU")),
        ("engine.gpus=[0]", ("engine.gpus", "no GPU 0", "none")),
        ("engine.gpus_per_trial=4096", ("engine.gpus_per_trial (=4096)",)),
    ],
)
def test_gpus_that_are_not_there(call, workplace, monkeypatch, change, says):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # a machine that has some shows none
    before = snapshot(workplace)
    refused(call("search", "study.yaml", "--out", "out", "--set", change), *says, code=1)
    assert snapshot(workplace) == before


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Run the study once; give its folder."""
    home = tmp_path_factory.mktemp("finished")
    (home / "study.yaml").write_text(STUDY)
    from stemlab import search

    search(home / "study.yaml", home / "out")
    assert len((home / "out" / "records.jsonl").read_text().splitlines()) == 2
    return home / "out"


@pytest.fixture
def folder(workplace, finished):
    """Copy the finished study, to be harmed."""
    shutil.copytree(finished, workplace / "out")
    return workplace / "out"


def test_folder_of_another_study(call, workplace, folder):
    before = snapshot(workplace)
    for more in ((), ("--resume",)):
        result = call("search", "study.yaml", "--out", "out", "--set", "train.lr=0.5", *more)
        refused(result, "out/study.yaml", "another study", "--out")
    assert snapshot(workplace) == before


def test_folder_that_was_run_before(call, workplace, folder):
    before = snapshot(workplace)
    refused(call("search", "study.yaml", "--out", "out"), "out", "started before", "--resume", "--out")
    assert snapshot(workplace) == before


def test_folder_in_use(call, workplace, folder):
    before = snapshot(workplace)
    with filelock.FileLock(folder / ".lock"):
        refused(call("search", "study.yaml", "--out", "out", "--resume"), "out", "another study", "--out")
    assert snapshot(workplace) == before


def test_records_without_a_study(call, workplace, folder):
    (folder / "study.yaml").unlink()
    before = snapshot(workplace)
    refused(call("search", "study.yaml", "--out", "out", "--resume"), "out/records.jsonl", "study.yaml", "--out")
    assert snapshot(workplace) == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"name: [\n", ("out/study.yaml:2", "not valid YAML")),
        (b"", ("out/study.yaml:1", "empty")),
        (b"name: \xff\n", ("out/study.yaml", "utf-8")),
    ],
    ids=["yaml", "empty", "binary"],
)
def test_study_file_of_the_folder_broken(call, workplace, folder, content, says):
    (folder / "study.yaml").write_bytes(content)
    before = snapshot(workplace)
    refused(call("search", "study.yaml", "--out", "out", "--resume"), *says)
    refused(call("report", "out"), *says)
    assert snapshot(workplace) == before


@pytest.mark.parametrize(
    "line",
    [b'{"trial": "abc", "sta', b"\x00\x00\x00", b"\xff\xfe", b"5", b"[]", b"{}", b'{"trial": "abc", "status": "ok"}'],
)
def test_corrupt_record_in_the_middle(call, workplace, folder, line):
    first, second = (folder / "records.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "records.jsonl").write_bytes(first + line + b"\n" + second)
    before = snapshot(workplace)
    for command in (("search", "study.yaml", "--out", "out", "--resume"), ("report", "out")):
        refused(call(*command), "out/records.jsonl:2: not a record")
        assert snapshot(workplace) == before


def test_record_with_values_of_the_wrong_type(call, workplace, folder):
    lines = (folder / "records.jsonl").read_text().splitlines()
    lines[0] = json.dumps({**json.loads(lines[0]), "metrics": 5})
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n")
    before = snapshot(workplace)
    for command in (("search", "study.yaml", "--out", "out", "--resume"), ("report", "out")):
        refused(call(*command), "out/records.jsonl:1: not a record", "metrics")
        assert snapshot(workplace) == before


@pytest.mark.parametrize("torn", [lambda line: line[:100], lambda line: b"\0" * 100 + b"\n"], ids=["cut", "zeros"])
def test_torn_last_record_is_recovered(call, workplace, folder, torn):
    first, second = (folder / "records.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "records.jsonl").write_bytes(first + torn(second))
    result = call("report", "out")
    assert (result.code, result.out) == (0, "out/report.html\n")
    result = call("search", "study.yaml", "--out", "out", "--resume", "--json")
    assert result.code == 0
    assert f"out/records.jsonl: the last line ({len(torn(second))} bytes) was not a whole record" in result.err
    assert (folder / "records.damaged").read_bytes() == torn(second).rstrip(b"\n") + b"\n"
    assert len(json.loads(result.out)["ranking"]) == 2
    again = (folder / "records.jsonl").read_bytes().splitlines(keepends=True)
    assert again[0] == first
    assert [json.loads(line)["trial"] for line in again] == [json.loads(line)["trial"] for line in (first, second)]


def test_report_that_cannot_be_written(call, workplace, folder):
    (folder / "report.html").unlink()
    (folder / "report.html").mkdir()
    before = snapshot(workplace)
    refused(call("report", "out"), "out/report.html", "cannot be written", code=1)
    assert snapshot(workplace) == before


def test_a_mistake_is_mended_in_the_same_folder(call, workplace):
    """What was refused has claimed nothing: the corrected study may use the same folder."""
    bad = ("--set", "search.tuner=tpe", "--set", "search.tuner_options={gama: 1}")
    refused(call("search", "study.yaml", "--out", "out", *bad), "gama")
    assert call("search", "study.yaml", "--out", "out", "--trials", "1").code == 0


def test_weights_of_another_model(call, workplace):
    assert call("build", "model.yaml", "--out", "small").code == 0
    (workplace / "wide.yaml").write_text(MODEL.replace("dim: 48", "dim: 96"))
    assert call("build", "wide.yaml", "--out", "wide").code == 0
    shutil.copy(workplace / "wide" / "model.safetensors", workplace / "small")
    before = snapshot(workplace)
    refused(call("build", "small"), "small/model.safetensors", "not the weights of", "small/config.json")
    assert snapshot(workplace) == before


@pytest.mark.parametrize("content", [b"", b"junk", b"\xff" * 5000], ids=["empty", "junk", "binary"])
def test_weights_broken(call, workplace, content):
    assert call("build", "model.yaml", "--out", "small").code == 0
    (workplace / "small" / "model.safetensors").write_bytes(content)
    before = snapshot(workplace)
    refused(call("build", "small"), "small/model.safetensors")
    assert snapshot(workplace) == before


def test_build_onto_a_file(call, workplace):
    before = snapshot(workplace)
    refused(call("build", "model.yaml", "--out", "study.yaml"), "study.yaml", "cannot be made", code=1)
    refused(call("build", "model.yaml", "--out", "study.yaml/x"), "study.yaml/x", "cannot be made", code=1)
    assert snapshot(workplace) == before


def limited(workplace: Path, size: int, *arguments: str) -> Result:
    """Run the command line where no file can grow beyond `size` bytes: write() fails as on a full disk."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("stemlab")), *arguments],
        cwd=workplace,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    return Result(done.returncode, done.stdout, done.stderr)


def test_no_room_for_a_model(call, workplace):
    assert call("build", "model.yaml", "--out", "small").code == 0
    before = snapshot(workplace)
    refused(limited(workplace, 50_000, "build", "model.yaml", "--seed", "1", "--out", "small"), "small", code=1)
    assert snapshot(workplace) == before


def test_no_room_for_a_study(call, workplace):
    command = ("search", "study.yaml", "--out", "out")
    refused(limited(workplace, 300, *command), "out/study.yaml", "cannot be written", code=1)
    assert call(*command).code == 0


def test_no_trial_finishes_well(call, workplace):
    """A study that ran and failed: exit code 1, and its records say why."""
    result = call("search", "study.yaml", "--out", "out", "--set", "train.lr=1.0e+6")
    assert result.code == 1
    assert "Traceback" not in result.err
    assert result.err.splitlines()[-1].startswith("error: no trial finished well")
    records = [json.loads(line) for line in (workplace / "out" / "records.jsonl").read_text().splitlines()]
    assert [record["status"] for record in records] == ["diverged", "diverged"]
    assert all("loss" in record["error"] for record in records)


def test_no_room_for_a_record(call, workplace, folder):
    """The second record does not fit: the first stays whole, and the study goes on once there is room."""
    first, second = (folder / "records.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "records.jsonl").write_bytes(first)
    command = ("search", "study.yaml", "--out", "out", "--resume")
    result = limited(workplace, len(first) + len(second) // 2, *command)
    assert result.code == 1
    assert result.out == ""
    assert "Traceback" not in result.err
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "out/records.jsonl: cannot be written" in errors[0]
    assert "--resume" in errors[0]
    assert (folder / "records.jsonl").read_bytes() == first
    assert not list(folder.rglob(".*.*"))  # no temporary file of a write that failed
    assert call(*command).code == 0
    assert (folder / "records.jsonl").read_bytes().startswith(first)
    assert len((folder / "records.jsonl").read_bytes().splitlines()) == 2


def workers_of(process: psutil.Process) -> Iterator[psutil.Process]:
    """Yield the worker processes of a running search: the children of its fork server."""
    for child in process.children():
        if "stemlab.engine.fork_server" in child.cmdline():
            yield from child.children()


@pytest.mark.parametrize("retries", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_killed_worker_is_replaced(tmp_path, retries):
    """Kill the worker during the second of three trials: it runs again or is recorded as failed; the third runs."""
    (tmp_path / "study.yaml").write_text(STUDY.replace("[[8, 16, 32], ", "[[8, 16, 32], [12, 24, 48], "))
    records = tmp_path / "out" / "records.jsonl"
    command = ["search", "study.yaml", "--out", "out", "--trials", "3"]
    for change in ("engine.workers=1", "engine.gpus_per_trial=0", "train.epochs=6", f"engine.retries={retries}"):
        command += ["--set", change]
    with subprocess.Popen(
        [str(Path(sys.executable).with_name("stemlab")), *command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as search:
        deadline = time.monotonic() + 60
        while not (records.exists() and records.read_bytes().endswith(b"\n")):
            assert time.monotonic() < deadline
            assert search.poll() is None
            time.sleep(0.02)
        first = records.read_bytes()
        (worker,) = workers_of(psutil.Process(search.pid))
        worker.send_signal(signal.SIGKILL)
        out, err = search.communicate(timeout=90)
    assert search.returncode == 0, err
    assert "Traceback" not in err
    assert records.read_bytes().startswith(first)
    written = [json.loads(line) for line in records.read_bytes().splitlines()]
    assert [record["status"] for record in written] == ["ok", "ok" if retries else "failed", "ok"]
    assert ("SIGKILL" in err) == ("failed" in out) == (retries == 0)
    assert ("killed by SIGKILL" in (written[1]["error"] or "")) == (retries == 0)
    assert not psutil.pid_exists(worker.pid)


TRAININGS = {
    "no such model": (["model.yml"], ("model.yml", "no such file", "did you mean 'model.yaml'?")),
    "no such set": (["--data", "digit"], ("'digit'", "did you mean 'digits'?")),
    "no such folder": (["--data", "folder:photos"], ("photos", "data.name")),
    "a folder without images": (["--data", "empty"], ("empty", "data.name")),
    "no such preset": (["--recipe", "diet"], ("'diet'", "did you mean 'deit'?")),
    "no such recipe": (["--recipe", "recipe.yml"], ("recipe.yml", "no such file", "did you mean 'recipe.yaml'?")),
    "a mistake in the recipe": (
        ["--recipe", "recipe.yaml"],
        ("recipe.yaml:2", "train.optimizer", "did you mean 'adam"),
    ),
    "a mistake behind --set": (["--set", "train.epochs=0"], ("--set train.epochs=0", "train.epochs", "got 0")),
    "a model that does not fit": (["--set", "data.image_size=30"], ("model.yaml:1",)),
    "no such device": (["--device", "tpu"], ("device", "tpu")),
    "no processes": (["--processes", "0"], ("1 process or more",)),
    "an empty --out": (["--out", ""], ("--out",)),
}


@pytest.mark.parametrize("mistake", TRAININGS)
def test_train_refuses(mistake, call, tmp_path):
    (tmp_path / "model.yaml").write_text(MODEL)
    (tmp_path / "recipe.yaml").write_text("epochs: 1\noptimizer: adamv\n")
    (tmp_path / "empty").mkdir()
    before = snapshot(tmp_path)
    arguments, says = TRAININGS[mistake]
    model = [] if arguments[0].startswith("model") else ["model.yaml"]
    data = [] if "--data" in arguments else ["--data", "digits"]
    refused(call("train", *model, *data, *arguments), *says)
    assert snapshot(tmp_path) == before
