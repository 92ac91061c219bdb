"""Studies with records made by hand, whose truth is known."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stemlab.plan import Plan
from stemlab.records import StudyFolder, TrialRecord
from stemlab.spec import AblationSpec
from stemlab.spec.files import dump_yaml, read, validate

EVIL = '</pre><script src="https://evil.example/x.js">alert(1)</script> $\\frac{x}$ | `b` *c* 100% #1 a_b & ~^'

TINY: dict[str, Any] = {
    "name": "planted",
    "question": "Does the norm matter?",
    "model": {
        "stem": {"channels": [4, 8], "strides": 4, "norm": {"choice": ["batch", "none"]}},
        "body": {"dim": 16, "depth": 2, "heads": 2, "mlp_ratio": 2, "class_token": False},
    },
    "data": {"name": "digits", "image_size": 32},
    "train": {"epochs": 4, "lr": {"log_uniform": [1e-3, 1e-1]}},
    "ablate": {"draws": 12, "seeds": [0, 1]},
}

TWENTY: dict[str, Any] = {
    **TINY,
    "name": "twenty",
    "question": "Which of ten stems is best, and does the body’s pooling matter?",
    "model": {
        "stem": {
            "choice": {
                **{f"conv {c}": {"channels": [c, 2 * c], "strides": 4, "norm": "batch"} for c in (4, 6, 8, 10, 12)},
                **{f"patch {p}": {"patch": p} for p in (2, 4, 8, 16, 32)},
            }
        },
        "body": {**TINY["model"]["body"], "qkv_bias": {"choice": [True, False]}},
    },
    "train": {"epochs": 6, "lr": {"log_uniform": [1e-3, 1e-1]}, "weight_decay": {"log_uniform": [1e-3, 1.0]}},
    "ablate": {"draws": 10, "seeds": [0, 1]},
}

Status = Callable[[str, int, int], str]


def plant(
    path: Path,
    study: dict[str, Any],
    gain: Callable[[dict[str, str]], float] = lambda levels: 0.0,
    status: Status = lambda arm, draw, seed: "ok",
    keep: Callable[[str, int, int], bool] = lambda arm, draw, seed: True,
    noise: float = 0.01,
    probes: bool = False,
) -> StudyFolder:
    """Write a study folder in which an arm's accuracy is that of the draw (best in the middle) plus its gain.

    `status` says what became of a trial, `keep` whether it is on record.
    """
    folder = StudyFolder(path)
    path.mkdir(parents=True, exist_ok=True)
    (path / "study.yaml").write_text(dump_yaml(validate(AblationSpec, _document(path, study)).canonical()))
    document = read(path / "study.yaml")
    plan = Plan.of(validate(AblationSpec, document), document)
    lines = []
    for place, ((arm, draw), candidate) in enumerate(zip(plan.design.cells, plan.cells, strict=True)):
        middle = sum(abs(share - 0.5) for share in plan.design.draws[draw].values())
        for trial in candidate.trials:
            if not keep(arm.label, draw, trial.seed):
                continue
            chance = random.Random(f"{arm.label}/{draw}/{trial.seed}")
            value = min(0.999, 0.9 - 0.3 * middle + gain(arm.levels) + chance.gauss(0, noise))
            became = status(arm.label, draw, trial.seed)
            ok = became == "ok"
            epochs = trial.train.epochs if ok else 1
            curve = [_epoch(e, value, trial.train.epochs, chance, probes) for e in range(1, epochs + 1)]
            metrics = {"seconds": 10 + chance.random()}
            if ok:
                metrics |= {"top1": value, "top1_error": 1 - value, "loss": 2 * (1 - value), "test_top1": value}
                metrics |= {"test_loss": 2 * (1 - value)}
            record = TrialRecord.of(
                trial,
                became,
                assignment=candidate.assignments[0],
                metrics=metrics if became != "failed" else {},
                cost=candidate.matched.cost.as_dict(),
                match=candidate.matched.as_dict(),
                curve=curve if became != "failed" else [],
                probes=_probes(value) if probes and ok else {},
                error=None if ok else f"what happened to {arm.label}",
                proposal=place,
            )
            lines.append(record.to_json() + "\n")
    folder.records_file.write_text("".join(lines))
    folder.write_json("manifest.json", {"command": "stemlab ablate planted.yaml", "versions": {"torch": "2.9"}})
    return folder


def _document(path: Path, study: dict[str, Any]) -> Any:
    file = path / "given.json"
    file.write_text(json.dumps(study))
    return read(file)


def _epoch(epoch: int, value: float, epochs: int, chance: random.Random, probes: bool) -> dict[str, float]:
    top1 = 0.1 + (value - 0.1) * (1 - math.exp(-4 * epoch / epochs)) / (1 - math.exp(-4))
    row = {"epoch": epoch, "loss": 2 * (1 - top1), "top1": top1}
    if probes:
        stem = 10 ** chance.uniform(-1, 1)
        row |= {"stem_grad": stem, "stem_grad_max": 3 * stem, "body_grad": 1.0, "body_grad_max": 2.0 / epoch}
    return row


def _probes(value: float) -> dict[str, Any]:
    layers = ["stem", "block 1", "block 2"]
    return {
        "stem_grad_max": 3.0,
        "tokens": {"layers": layers, "similarity": [0.1, 0.3 + value / 4, 0.5 + value / 4]},
        "token_similarity": 0.5 + value / 4,
        "hessian": {"skipped": "not asked for"},
    }
