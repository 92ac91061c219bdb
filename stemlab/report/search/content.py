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
from ...spec import DataSpec, SearchSettings, SearchSpec
from ...spec.files import read, validate
from ...spec.search import Judge, QuantileSpec
from ..manifest import lines
from ..manifest import read as read_manifest
from ..numbers import GAP, count, number, percent, quantity, signed
from ..sections import Section
from .findings import sections

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
"""The columns of the ranking and their headings; what else is sought or measured has a column too."""

MOST_ROWS = 200
"""So many proposals at most are ranked on the page; ranking.csv has them all."""

MOST_TROUBLES = 50
"""So many diverged and failed trials at most are told of one by one."""

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

    `rows` are the cells of the ranking under `columns`, `cut` says what they lack; `best` is the label of the best
    proposal, if any, as it stands in the headline; `facts` are its numbers, name and value.
    """

    name: str
    headline: str
    best: str
    facts: list[tuple[str, str]]
    notes: list[str]
    columns: dict[str, str]
    rows: list[dict[str, str]]
    cut: str
    sections: tuple[Section, ...]
    troubles: list[Trouble]
    more_troubles: str
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
    everything = folder.records()
    records = ranking.latest(everything)
    ranked = ranking.rank(records, metric, sign, settings.judge)
    manifest = read_manifest(folder)
    ended = bool(manifest.get("finished"))
    ok = ranked[ranked["judged"].notna()]
    best = None if ok.empty else ok.iloc[0]
    planned, seeds = settings.trials, settings.trials_each
    extra = _extra(settings, ranked)
    shown = ranked.head(MOST_ROWS).to_dict("records")
    cells = [_cells(place, row, seeds) | _more(row, extra) for place, row in enumerate(shown, start=1)]
    broken = [record for record in records if record.status in ("diverged", "failed")]
    return Content(
        name=study.name,
        headline=_headline(ranked, best, metric),
        best="" if best is None else best["label"],
        facts=[] if best is None else _facts(best, metric),
        notes=[
            *_progress(len(ranked), planned, ended, manifest.get("stopped")),
            *_notes(ranked, best, records, settings),
        ],
        columns=_columns(extra),
        rows=cells,
        cut=_cut(len(ranked), MOST_ROWS, "proposals are shown; all of them are in ranking.csv"),
        sections=sections(folder, study, everything),
        troubles=[
            Trouble(r.trial, label(r), r.seed, r.status, r.error or "no message was recorded")
            for r in broken[:MOST_TROUBLES]
        ],
        more_troubles=_cut(len(broken), MOST_TROUBLES, "trials are shown; all of them are in records.jsonl"),
        study=written.read_text(encoding="utf-8"),
        manifest=lines(manifest),
        commands=_commands(folder, best is not None, len(ranked) < planned and not ended),
        records=records,
        ranked=ranked,
    )


def _extra(settings: SearchSettings, ranked: Any) -> dict[str, str]:
    """Return the columns, name and heading, of what this search seeks or measured beside the usual."""
    sought = [objective.metric for objective in settings.objectives if objective.metric in _FORMS]
    measured = [name for name in ranking.LATENCIES if ranked[name].notna().any()]
    return {name: _FORMS[name][0] for name in dict.fromkeys((*sought, *measured))}


def _columns(extra: dict[str, str]) -> dict[str, str]:
    """Return all columns: the loss before the accuracies, times together."""
    columns = {}
    for name, heading in COLUMNS.items():
        if name == "validation" and "loss" in extra:
            columns["loss"] = extra["loss"]
        if name == "seconds":
            columns |= {name: extra[name] for name in ranking.LATENCIES if name in extra}
        columns[name] = heading
    return columns


_FORMS = {
    "loss": ("Validation loss", ".4f"),
    "latency": ("Latency (ms)", ".3g"),
    "stem_latency": ("Stem’s latency (ms)", ".3g"),
}


def _more(row: dict[str, Any], extra: dict[str, str]) -> dict[str, str]:
    return {name: _loss(row) if name == "loss" else number(row[name], _FORMS[name][1]) for name in extra}


def _cut(there: int, most: int, words: str) -> str:
    return f"The first {most} of {there:,} {words}." if there > most else ""


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


def _progress(tried: int, planned: int, ended: bool, stopped: str | None) -> Iterator[str]:
    if stopped:
        yield f"The search ended early, with {tried} of {count(planned, 'planned proposal')}: {stopped}."
    elif tried < planned and ended:
        yield f"The search ended with {tried} of {count(planned, 'planned proposal')}: there were no more to try."
    elif tried < planned:
        yield f"{tried} of {count(planned, 'planned proposal')} are in so far: the order may still change."


def _notes(ranked: Any, best: Any, records: list[TrialRecord], settings: SearchSettings) -> Iterator[str]:
    """Yield what keeps a reader from making more of the numbers than there is in them."""
    if ranked.empty:
        return
    if settings.draws is not None:
        drawn = " and ".join(settings.draws.over)
        yield (
            f"Every proposal was trained on the same {count(settings.draws.count, 'draw')} of {drawn}. Accuracies are "
            "means over them, and ± is their standard deviation."
        )
    if settings.judge is not None and settings.judge != "mean":
        yield f"Proposals are judged by {_judge(settings.judge)} of their trials, not by their mean."
    seeds = len(settings.seeds)
    if settings.draws is not None:
        pass
    elif seeds == 1:
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
            near = int((ranked["top1"][ranked["judged"].notna()] >= best["top1"] - error).sum()) - 1
            text += (
                f" The standard error of the best validation accuracy, from so many images, is "
                f"{100 * error:.1f} points; {count(near, 'other proposal')} came within that of it."
            )
        yield text
    if len(settings.objectives) > 1:
        yield (
            f"{count(len(settings.objectives), 'objective')} are sought: see the Pareto front. The ranking and what is "
            f"called the best go by the {_WORDS[settings.chief.metric]} alone."
        )
    if len(ranked) > 1:
        yield (
            "The validation part chose the best, which flatters its validation accuracy; the test part chose "
            "nothing and is only reported."
        )


def _judge(judge: Judge) -> str:
    return f"the {judge.quantile:.0%} quantile" if isinstance(judge, QuantileSpec) else f"the {judge}"


def _images(record: TrialRecord) -> tuple[int, int]:
    """Return how many images the validation and the test part have; 0 where that is not known."""
    try:
        _, validation, test = DataSpec.model_validate(record.data).part_sizes
    except ValidationError:
        return 0, 0
    return validation, test


def _cells(place: int, row: dict[str, Any], seeds: int) -> dict[str, str]:
    return {
        "rank": str(place) if math.isfinite(row["judged"]) else GAP,
        "label": row["label"] or GAP,
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
