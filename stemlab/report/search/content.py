"""What a report says, worked out once from a study folder for the page and for the summary."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ...analysis import ranking
from ...analysis.labels import label
from ...records import StudyFolder, TrialRecord
from ...spec import DataSpec, SearchSpec
from ...spec.files import read, validate
from ..manifest import lines
from ..manifest import read as read_manifest
from ..numbers import GAP, count, number, percent, quantity, signed

COLUMNS = {
    "rank": "Rank",
    "label": "Stem",
    "validation": "Validation top-1 (%)",
    "test": "Test top-1 (%)",
    "seeds": "Seeds",
    "params": "Parameters",
    "flops": "Multiply-adds",
    "share": "Stem’s share (%)",
    "match": "Match error (%)",
    "seconds": "Time (s)",
    "status": "Status",
}
"""The columns of the ranking and their headings; with the loss as objective, it has a column too."""

_WORDS = {"top1": "validation top-1", "top1_error": "validation top-1 error", "loss": "validation loss"}


@dataclass(frozen=True)
class Trouble:
    """A trial that diverged or failed."""

    trial: str
    label: str
    seed: int
    status: str
    error: str


@dataclass(frozen=True)
class Content:
    """All that a report says. Everything is plain text, not yet escaped, but the records and the ranking.

    `rows` are the cells of the ranking under `columns`; `best` is the label of the best proposal, if any, as
    it stands in the headline; `facts` are its numbers, name and value.
    """

    name: str
    headline: str
    best: str
    facts: list[tuple[str, str]]
    notes: list[str]
    columns: dict[str, str]
    rows: list[dict[str, str]]
    troubles: list[Trouble]
    study: str
    manifest: list[tuple[str, str]]
    commands: list[tuple[str, str]]
    records: list[TrialRecord]
    ranked: Any


def gather(folder: StudyFolder) -> Content:
    """Return what there is to say about a search, finished or not."""
    written = folder.path / "study.yaml"
    study = validate(SearchSpec, read(written))
    settings = study.search
    metric, sign = settings.chief.metric, settings.chief.sign
    records = ranking.latest(folder.records())
    ranked = ranking.rank(records, metric, sign, settings.judge)
    manifest = read_manifest(folder)
    ended = bool(manifest.get("finished"))
    ok = ranked[(ranked["status"] == "ok") & ranked[metric].notna()]
    best = None if ok.empty else ok.iloc[0]
    planned, seeds = settings.trials, len(settings.seeds)
    columns = dict(COLUMNS)
    if metric == "loss":
        columns = {"rank": "Rank", "label": "Stem", "loss": "Validation loss", **COLUMNS}
    return Content(
        name=study.name,
        headline=_headline(ranked, best, metric),
        best="" if best is None else best["label"],
        facts=[] if best is None else _facts(best, metric),
        notes=[*_progress(len(ranked), planned, ended), *_notes(ranked, best, records, seeds)],
        columns=columns,
        rows=[_cells(place, row, metric, seeds) for place, row in enumerate(ranked.to_dict("records"), start=1)],
        troubles=[
            Trouble(r.trial, label(r), r.seed, r.status, r.error or "no message was recorded")
            for r in records
            if r.status in ("diverged", "failed")
        ],
        study=written.read_text(encoding="utf-8"),
        manifest=lines(manifest),
        commands=_commands(folder, best is not None, len(ranked) < planned and not ended),
        records=records,
        ranked=ranked,
    )


def _headline(ranked: Any, best: Any, metric: str) -> str:
    if ranked.empty:
        return "No trial has finished yet."
    tried = count(len(ranked), "proposal")
    if best is None:
        return f"None of {tried} finished with a {_WORDS[metric]} in all its trials, so there is no best stem."
    shown = dict(_facts(best, metric))
    clauses = [
        f"{shown[name]} {words}"
        for name, words in (
            ("Validation loss", "validation loss"),
            ("Validation top-1", "top-1 on the validation part"),
            ("Test top-1", "on the test part"),
            ("Multiply-adds", "multiply-adds"),
            ("Parameters", "parameters"),
            ("Match error", "off the cost it was matched to"),
        )
        if name in shown
    ]
    return f"Of {tried}, {best['label']} came out best: {', '.join(clauses)}."


def _facts(best: Any, metric: str) -> list[tuple[str, str]]:
    facts = [
        ("Validation loss", _loss(best) if metric == "loss" else GAP),
        ("Validation top-1", f"{percent(best['top1'], best['top1_std'])} %"),
        ("Test top-1", f"{percent(best['test_top1'])} %"),
        ("Multiply-adds", quantity(best["flops"])),
        ("Parameters", quantity(best["params"])),
        ("Stem’s share", f"{percent(best['stem_flops_share'])} %"),
        ("Match error", f"{signed(best['match_error'])} %"),
    ]
    return [(name, value) for name, value in facts if not value.startswith(GAP)]


def _progress(tried: int, planned: int, ended: bool) -> Iterator[str]:
    if tried < planned and ended:
        yield f"The search ended with {tried} of {count(planned, 'planned proposal')}: there were no more to try."
    elif tried < planned:
        yield f"{tried} of {count(planned, 'planned proposal')} are in so far: the order may still change."


def _notes(ranked: Any, best: Any, records: list[TrialRecord], seeds: int) -> Iterator[str]:
    """Yield what keeps a reader from making more of the numbers than there is in them."""
    if ranked.empty:
        return
    if seeds == 1:
        yield (
            "Every proposal was trained once, with a single seed. How much an accuracy changes from seed to seed "
            "was not measured, so the order of close neighbours may be chance."
        )
    else:
        yield f"Accuracies are means over {seeds} seeds; ± is the standard deviation from seed to seed."
    validation, test = _images(records[0])
    if not test:
        yield "A difference smaller than one image of the test part (1/n of n images) is no evidence of anything."
    else:
        each = f"The validation part has {validation} images and the test part {test}"
        if validation == test:
            each = f"The validation and the test part have {test} images each"
        text = f"{each}: one test image is {100 / test:.2f} points, and a smaller difference is no evidence."
        if best is not None and math.isfinite(best["top1"]):
            share = min(max(best["top1"], 1 / validation), 1 - 1 / validation)
            error = math.sqrt(share * (1 - share) / validation)
            near = int((ranked["top1"][ranked["status"] == "ok"] >= best["top1"] - error).sum()) - 1
            text += (
                f" The standard error of the best validation accuracy, from so many images, is "
                f"{100 * error:.1f} points; {count(near, 'other proposal')} came within that of it."
            )
        yield text
    if len(ranked) > 1:
        yield (
            "The validation part chose the best, which flatters its validation accuracy; the test part chose "
            "nothing and is only reported."
        )


def _images(record: TrialRecord) -> tuple[int, int]:
    """Return how many images the validation and the test part have; 0 where that is not known."""
    try:
        _, validation, test = DataSpec.model_validate(record.data).part_sizes
    except ValidationError:
        return 0, 0
    return validation, test


def _cells(place: int, row: dict[str, Any], metric: str, seeds: int) -> dict[str, str]:
    return {
        "rank": str(place) if row["status"] == "ok" and math.isfinite(row[metric]) else GAP,
        "label": row["label"] or GAP,
        "loss": _loss(row),
        "validation": percent(row["top1"], row["top1_std"]),
        "test": percent(row["test_top1"]),
        "seeds": str(row["seeds"]) if row["seeds"] == seeds else f"{row['seeds']} of {seeds}",
        "params": quantity(row["params"]),
        "flops": quantity(row["flops"]),
        "share": percent(row["stem_flops_share"]),
        "match": signed(row["match_error"]),
        "seconds": number(row["seconds"], ".1f"),
        "status": row["status"],
    }


def _commands(folder: StudyFolder, has_best: bool, unfinished: bool) -> list[tuple[str, str]]:
    path = str(folder.path)
    study, best, out = (shlex.quote(text) for text in (f"{path}/study.yaml", f"{path}/best.json", path))
    commands = []
    if unfinished:
        commands.append(("Go on with the search", f"stemlab search {study} --out {out} --resume"))
    if has_best:
        commands.append(("Build the best model", f"stemlab build {best}"))
    return [*commands, ("Run the same search again", f"stemlab search {study} --out {shlex.quote(path + '-again')}")]


def _loss(row: Any) -> str:
    text = number(row["loss"], ".4f")
    return f"{text} ± {row['loss_std']:.4f}" if math.isfinite(row["loss_std"]) else text
