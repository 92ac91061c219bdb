"""What a search found, section by section: its front, how the best was found, what mattered, what was not trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from ...analysis import pareto, sought
from ...analysis.labels import label
from ...analysis.ranking import latest
from ...analysis.result import Result
from ...analysis.running_best import expected_best, running_best
from ...analysis.screening import rank_correlation
from ...errors import StudyError
from ...importance import importance
from ...records import StudyFolder, TrialRecord
from ...spec import Objective, SearchSpec
from .. import svg
from ..data import data_section
from ..forest import Estimate, forest
from ..numbers import GAP, count, number, percent, quantity
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
        _screen(folder, study, records),
        data_section(folder),
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
            + (
                ": where there are more than two, a mark of the front may lie behind others here."
                if len(objectives) > 2
                else "."
            )
            + _thinned(len(values)),
        )
        for place, other in enumerate(objectives[1:], start=1)
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
    lines, drawn, name = [this], gains, "the same results in a random order, expected"
    method = (
        "That is no random search: the results are those that the tuner chose. A random search of the same space "
        "(tuner: random) in a folder beside this one is drawn instead where there is one."
    )
    if study.search.tuner == "random":
        name, method = "best of n random draws, expected", "The search itself draws at random."
    elif other is not None:
        random = sought.values(other[1], study.search)
        lines.append(_running(f"random search ({other[0]})", random, objective))
        drawn, name = random[objective.metric].to_numpy(dtype=float), "best of n random draws, expected"
        method = f"The random search of the same space is that in {other[0]}."
    found = expected_best(drawn, objective.sign)
    expected = figures.Band(name, found.n, *(factor * each for each in (found.mean, found.low, found.high)))
    method = (
        f"Grey: what the best of {'its' if other else 'the'} first n is expected to be were the results in a random "
        f"order, and where it lies in 90 of 100 orders; both are exact. {method}"
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
    return Section("importance", heading, (), (Picture(_svg(figure, "importance", heading), caption),))


def _ended(study: SearchSpec, records: list[TrialRecord]) -> Section:
    slow = [record for record in records if record.status == "infeasible"]
    tables = [] if not slow else [_infeasible(slow)]
    heading = "Trials that were stopped early or not trained"
    return Section("ended", heading, tuple(_fates(study, records)), (), tuple(tables))


def _infeasible(slow: list[TrialRecord]) -> Table:
    rows = [{"label": label(record), "why": _latency(record)} for record in slow]
    columns = [Column("Stem", lambda row: str(row["label"]), True), Column("Why", lambda row: str(row["why"]), True)]
    method = f"{count(len(slow), 'trial')} not trained, since the model is not as fast as the study demands"
    method += f"; the first {MOST_ROWS} are shown." if len(slow) > MOST_ROWS else "."
    return Table.of("infeasible", Result("Not trained", pd.DataFrame(rows[:MOST_ROWS]), method), columns)


def _fates(study: SearchSpec, records: list[TrialRecord]) -> Iterator[str]:
    pruned = [record for record in records if record.status == "pruned"]
    rungs = Counter(record.until for record in pruned if record.until is not None)
    if rungs:
        each = ", ".join(f"{number} behind epoch {until}" for until, number in sorted(rungs.items()))
        yield (
            f"{count(rungs.total(), 'trial')} stopped at a rung of the {_fidelity(study)}, where others were better "
            f"or their bracket is not done: {each}. Their numbers are those of that epoch."
        )
    ends = sorted(len(record.curve) for record in pruned if record.until is None)
    if ends:
        spread = f"epoch {ends[0]}" if ends[0] == ends[-1] else f"epochs {ends[0]} to {ends[-1]}"
        yield (
            f"{count(len(ends), 'trial')} stopped behind {spread}, their best value so far being below the median of "
            "earlier proposals at that epoch. Their numbers are those of their last epoch."
        )


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


def _screen(folder: StudyFolder, study: SearchSpec, records: list[TrialRecord]) -> Section:
    """Say how well the screen ordered what was trained, and what waited in its pool when the search ended."""
    screen, objective = study.search.screen, study.search.chief
    if screen is None:
        return Section("screen", "Screen")
    heading = f"How {screen.by} ordered the proposals"
    found = rank_correlation(records, objective.metric, objective.sign)
    row = found.frame.iloc[0]
    rho, tau = _correlation("Spearman’s ρ", row, "spearman"), _correlation("Kendall’s τ", row, "kendall")
    words = [f"{found.title}. {rho}, {tau}."]
    rows = [
        {"label": label(_waiting_record(item)), "screen": item.get("screen")}
        for item in _waiting(folder)
        if isinstance(item, dict)
    ]
    if not rows:
        return Section("screen", heading, (*words, found.method))
    columns = [
        Column("Stem", lambda row: str(row["label"]), True),
        Column("Score", lambda row: GAP if row["screen"] is None else number(row["screen"], ".4g")),
    ]
    method = f"{count(len(rows), 'candidate')} waited in the pool when the search ended."
    table = Table.of("waiting", Result("Waiting candidates", pd.DataFrame(rows[:MOST_ROWS]), method), columns)
    return Section("screen", heading, (*words, found.method), (), (table,))


def _correlation(name: str, row: Any, column: str) -> str:
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    interval = f" ({number(low, '.2f')} to {number(high, '.2f')})" if np.isfinite(low) else ""
    return f"{name} {number(row[column], '.2f')}{interval}"


def _waiting(folder: StudyFolder) -> list[Any]:
    """Return what waiting.json lists: model, assignment and screen of each candidate."""
    try:
        waiting = folder.read_json("waiting.json")
    except StudyError:
        return []
    return waiting if isinstance(waiting, list) else []


def _waiting_record(item: dict[str, Any]) -> TrialRecord:
    return TrialRecord("", "ok", item.get("model", {}), {}, {}, 0, assignment=item.get("assignment", {}))


def _axis(objective: Objective, values: Any) -> figures.Axis:
    name, factor = called(objective.metric), scale(objective.metric)
    column = factor * values[objective.metric].to_numpy(dtype=float)
    if "(" not in name and np.abs(column).max() >= 1e5:
        name, column = f"{name} (millions)", column / 1e6
    return figures.Axis(_capital(name), column)


def _thinned(rows: int) -> str:
    most = figures.MOST_MARKS
    return f" Of the {rows} proposals behind the front {most} are drawn." if rows > most else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _svg(figure: Any, name: str, description: str) -> Markup:
    return Markup(svg.to_svg(figure, name, description))
