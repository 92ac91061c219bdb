"""What a search found, section by section: its front, how the best was found, what mattered, what was not trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from markupsafe import Markup

from ...analysis import pareto, sought
from ...analysis.labels import label
from ...analysis.ranking import latest
from ...analysis.result import Result
from ...analysis.running_best import expected_best, running_best
from ...importance import importance
from ...records import StudyFolder, TrialRecord
from ...spec import Objective, SearchSpec
from .. import svg
from ..forest import Estimate, forest
from ..numbers import count, number, percent, quantity
from ..sections import Picture, Section
from ..tables import Column, Table
from . import figures
from .beside import random_search
from .figures import Best

MOST_ROWS = 50
"""Of longer lists a page shows the beginning."""

NAMES = {
    "top1": "validation top-1 (%)",
    "top1_error": "validation top-1 error (%)",
    "loss": "validation loss",
    "latency": "latency (ms)",
    "stem_latency": "stem’s latency (ms)",
    "params": "parameters",
    "flops": "multiply-adds",
    "stem_flops_share": "stem’s share (%)",
    "match_error": "match error (%)",
}
"""What objectives are called; others by their own names, with spaces."""

_PERCENT = ("top1", "top1_error", "stem_flops_share", "match_error")


def called(metric: str) -> str:
    """Return what an objective is called, with its unit."""
    return NAMES.get(metric, metric.replace("_", " "))


def shown(metric: str, value: float) -> str:
    """Return an objective's value as the report writes it, without its unit."""
    if metric in _PERCENT:
        return percent(value)
    return number(value, ".4g") if metric in ("loss", "latency", "stem_latency") else quantity(value)


def scale(metric: str) -> float:
    """Return the factor to the unit of `called`."""
    return 100.0 if metric in _PERCENT else 1.0


def sections(folder: StudyFolder, study: SearchSpec, records: list[TrialRecord]) -> tuple[Section, ...]:
    """Return the sections that have something to show. `records` are all that there are, in their order."""
    values = sought.values(records, study.search)
    made = (
        _front(study, values),
        _best_so_far(folder, study, values),
        _importance(study, values, records),
        _ended(study, latest(records)),
    )
    return tuple(section for section in made if not section.empty)


def _front(study: SearchSpec, values: Any) -> Section:
    objectives = study.search.objectives
    values = values.dropna(subset=[objective.metric for objective in objectives]).reset_index(drop=True)
    if len(objectives) == 1 or values.empty:
        return Section("front", "Pareto front")
    on_front = sought.front(values, objectives)
    first = objectives[0]
    rows = values[on_front].sort_values(first.metric, ascending=first.sign < 0)
    names = " and ".join(called(objective.metric) for objective in objectives)
    pictures = [
        Picture(
            _svg(
                figures.front(_axis(first, values), _axis(other, values), on_front), f"front{place}", f"{names}: front"
            ),
            f"Every proposal by {called(first.metric)} and {called(other.metric)}. No other proposal is as good as one "
            "on the front in every objective and better in one"
            + (": where there are more than two, a mark of the front may lie behind others here." if place else ".")
            + _thinned(len(values)),
        )
        for place, other in enumerate(objectives[1:], start=len(objectives) - 2)
    ]
    left_out = f"; the first {MOST_ROWS} are shown" if len(rows) > MOST_ROWS else ""
    method = f"{count(len(rows), 'proposal')} of {len(values)}, ordered by {called(first.metric)}{left_out}."
    columns = [
        Column("Stem", lambda row: str(row["label"]), text=True),
        *(Column(_capital(called(o.metric)), partial(_cell, o.metric)) for o in objectives),
    ]
    table = Table.of("front", Result("Pareto front", rows.head(MOST_ROWS), method), columns)
    return Section("front", "Pareto front", (), (*pictures, _hypervolume(objectives, values)), (table,))


def _cell(metric: str, row: Mapping[str, Any]) -> str:
    return shown(metric, row[metric])


def _hypervolume(objectives: Sequence[Objective], values: Any) -> Picture:
    """Draw the hypervolume in units of the box that all results span, so that its size means something."""
    names, signs = [o.metric for o in objectives], [o.sign for o in objectives]
    table = values[names].to_numpy(dtype=float) * signs
    low, high = table.min(axis=0), table.max(axis=0)
    scaled = (table - low) / np.where(high > low, high - low, 1.0)
    # What lies on the edge of the box is to count, so the reference lies a tenth beyond it.
    places = np.flatnonzero(_new_on_front(scaled))
    grown = pareto.hypervolume_over_time(scaled[places], [1] * len(names), [-0.1] * len(names)) / 1.1 ** len(names)
    figure = figures.growth(places + 1, grown, len(values))
    return Picture(
        _svg(figure, "hypervolume", "Hypervolume of the front after each proposal"),
        "How the front grew: the share of the box that all results span, and a tenth more, that is dominated after "
        "each proposal.",
    )


def _new_on_front(scaled: Any) -> Any:
    """Return which rows were on the front when they came; only these can add volume."""
    front = np.empty((0, scaled.shape[1]))
    came = np.zeros(len(scaled), dtype=bool)
    for place, row in enumerate(scaled):
        if not (front >= row).all(axis=1).any():
            front = np.vstack([front[~(front <= row).all(axis=1)], row])
            came[place] = True
    return came


def _best_so_far(folder: StudyFolder, study: SearchSpec, values: Any) -> Section:
    objective = study.search.chief
    gains = values[objective.metric].to_numpy(dtype=float)
    heading = "How the best was found"
    if np.isfinite(gains).sum() < 2:
        return Section("progress", heading)
    factor = scale(objective.metric)
    this = _running("this search", values, objective)
    other = random_search(folder, study)
    lines, expected, method = [this], None, ""
    if other is not None:
        name, records = other
        lines.append(_running(f"random search ({name})", sought.values(records, study.search), objective))
        method = f"The random search of the same space is that of {name}."
    else:
        found = expected_best(gains, objective.sign)
        named = (
            "expected best of n random draws"
            if study.search.tuner == "random"
            else "the same results in a random order, expected"
        )
        expected = figures.Band(named, found.n, *(factor * each for each in (found.mean, found.low, found.high)))
        method = (
            "Grey: what the best of the first n is expected to be if these very results came in a random order, and "
            "where it lies in 90 of 100 such orders; both are exact."
        )
        if study.search.tuner != "random":
            method += (
                " That is no random search: the results are those that the tuner chose. A search with tuner: random "
                "of the same space, in a folder beside this one, is drawn instead where there is one."
            )
    figure = figures.best_so_far(lines, expected, f"Best {called(objective.metric)} so far")
    return Section(
        "progress",
        heading,
        (),
        (Picture(_svg(figure, "progress", heading), f"{method} Hours are those of all trials added up.", "wide"),),
    )


def _running(name: str, values: Any, objective: Objective) -> Best:
    best = scale(objective.metric) * running_best(values[objective.metric], objective.sign)
    # Only where the best changes, and at the end, is there anything to draw.
    kept = np.flatnonzero(np.isfinite(best) & (best != np.concatenate([[np.nan], best[:-1]])))
    kept = np.union1d(kept, [len(best) - 1])
    return Best(name, kept + 1, values["hours"].to_numpy(dtype=float)[kept], best[kept])


def _importance(study: SearchSpec, values: Any, records: list[TrialRecord]) -> Section:
    metric = study.search.chief.metric
    known, filled = values.dropna(subset=metric), sought.filled(records)
    heading = "What mattered"
    if len(known) < 2:
        return Section("importance", heading)
    found = importance(sought.holes(study), [filled[proposal] for proposal in known["proposal"]], list(known[metric]))
    if found.frame.empty:
        return Section("importance", heading, (found.method,))
    rows = [
        Estimate(row["hole"], 100 * row["importance"], 100 * row["low"], 100 * row["high"], row["low"] > 0)
        for row in found.frame.head(MOST_ROWS).to_dict("records")
    ]
    figure = forest(rows, f"Share of the variance of the {called(metric).removesuffix(' (%)')} (%)")
    caption = f"{found.method} Filled marks: more than nothing."
    return Section("importance", heading, (), (Picture(_svg(figure, "importance", heading), caption, "wide"),))


def _ended(study: SearchSpec, records: list[TrialRecord]) -> Section:
    return Section("ended", "Trials that were stopped early or not trained", tuple(_fates(study, records)))


def _fates(study: SearchSpec, records: list[TrialRecord]) -> Iterator[str]:
    pruned = [record for record in records if record.status == "pruned"]
    rungs = Counter(record.until for record in pruned if record.until is not None)
    if rungs:
        each = ", ".join(f"{number} behind epoch {until}" for until, number in sorted(rungs.items()))
        yield (
            f"{count(rungs.total(), 'trial')} stopped at a rung of the {_fidelity(study)}, since others were better "
            f"there: {each}. Their numbers are those of that epoch."
        )
    ends = sorted(len(record.curve) for record in pruned if record.until is None)
    if ends:
        spread = f"epoch {ends[0]}" if ends[0] == ends[-1] else f"epochs {ends[0]} to {ends[-1]}"
        yield (
            f"{count(len(ends), 'trial')} stopped behind {spread}, their best value so far being below the median of "
            "earlier proposals at that epoch. Their numbers are those of their last epoch."
        )
    slow = [record for record in records if record.status == "infeasible"]
    if slow:
        yield f"{count(len(slow), 'trial')} not trained, since the model is not as fast as the study demands:"
        for record in slow[:MOST_ROWS]:
            yield f"{label(record)}: {_latency(record)}"
        if len(slow) > MOST_ROWS:
            yield f"and {len(slow) - MOST_ROWS} more, in records.jsonl."


def _fidelity(study: SearchSpec) -> str:
    fidelity = study.search.fidelity
    return "search" if fidelity is None else fidelity.kind


def _latency(record: TrialRecord) -> str:
    if record.error:
        return record.error
    told = [
        f"{called(name).removesuffix(' (ms)')} {record.metrics[name]:.3g} ms"
        for name in ("latency", "stem_latency")
        if name in record.metrics
    ]
    return ", ".join(told) or "no latency is on record"


def _axis(objective: Objective, values: Any) -> figures.Axis:
    factor = scale(objective.metric)
    return figures.Axis(_capital(called(objective.metric)), factor * values[objective.metric].to_numpy(dtype=float))


def _thinned(rows: int) -> str:
    most = figures.MOST_MARKS
    return f" Of the {rows} proposals behind the front {most} are drawn." if rows > most else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _svg(figure: Any, name: str, description: str) -> Markup:
    return Markup(svg.to_svg(figure, name, description))
