"""Searches with records made by hand: real candidates of a small space, and results whose truth is known."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stemlab.analysis.sought import holes
from stemlab.records import StudyFolder, TrialRecord
from stemlab.space import Point, assignment, draw
from stemlab.spec import SearchSpec
from stemlab.spec.files import dump_yaml, read, validate

SPACE: dict[str, Any] = {
    "name": "planted",
    "model": {
        "stem": {
            "choice": {
                "conv": {"channels": [4, 8], "strides": 4, "norm": {"choice": ["batch", "layer", "none"]}},
                "patch": {"patch": {"choice": [4, 8, 16]}},
            }
        },
        "body": {"dim": 16, "depth": 2, "heads": 2, "mlp_ratio": 2, "class_token": False},
    },
    "data": {"name": "digits", "image_size": 32},
    "train": {"epochs": 4, "lr": {"log_uniform": [1e-3, 1e-1]}, "weight_decay": {"uniform": [0, 0.1]}},
    "search": {"trials": 40, "tuner": "tpe"},
}
LIGHT = {"conv": {"channels": [4, 8], "strides": 4}, "patch": {"patch": 4}}

Change = Callable[[int, dict[str, Any]], dict[str, Any]]


def plant_search(
    path: Path, count: int, noise: float = 0.01, change: Change = lambda number, record: {}, **search: Any
) -> StudyFolder:
    """Write the folder of a search with `count` proposals, one trial each.

    A convolution brings 0.2, a learning rate of 0.01 is best by 0.2 a decade, and nothing else matters. `change` gives
    other fields of a proposal's record.
    """
    folder = StudyFolder(path)
    path.mkdir(parents=True, exist_ok=True)
    file = path / "given.json"
    file.write_text(json.dumps({**SPACE, "search": {**SPACE["search"], **search}}))
    study = validate(SearchSpec, read(file))
    file.unlink()
    (path / "study.yaml").write_text(dump_yaml(study.canonical()))
    rng = random.Random(path.name)
    found = holes(study)
    lines = []
    for number in range(count):
        point: Point = draw(found, rng)
        filled = assignment(found, point)
        is_conv = filled["model.stem"] == "conv"
        top1 = 0.6 + 0.2 * is_conv - 0.2 * abs(math.log10(filled["train.lr"]) + 2) + rng.gauss(0, noise)
        flops = (2.0 if is_conv else 1.0) * (1 + rng.random())
        record: dict[str, Any] = {
            "trial": f"{number:016x}",
            "status": "ok",
            "model": {"stem": LIGHT[filled["model.stem"]]},
            "train": {"lr": filled["train.lr"]},
            "data": study.data,
            "seed": 0,
            "assignment": filled,
            "metrics": _metrics(top1) | {"seconds": 60 + 10 * rng.random()},
            "cost": {"flops": 1e6 * flops, "params": 5e5, "stem_flops": 1e5 * flops, "stem_flops_share": flops / 10},
            "match": {"depth": 2, "mlp_hidden": 32, "metric": "flops", "error": 0.001},
            "curve": [{"epoch": e, "loss": 2 / e, "top1": top1 * e / 4} for e in range(1, 5)],
            "proposal": number,
        }
        record |= change(number, record)
        lines.append(TrialRecord(**record).to_json() + "\n")
    folder.records_file.write_text("".join(lines))
    folder.write_json("manifest.json", {"command": "stemlab search planted.yaml", "finished": "2026-11-21T16:00:00"})
    return folder


def _metrics(top1: float) -> dict[str, float]:
    return {"top1": top1, "top1_error": 1 - top1, "loss": 2 * (1 - top1), "test_top1": top1 - 0.01}
