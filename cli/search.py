"""`stemlab search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemlab.quantities import human

from .following import Engine, Out, Resume, Set, changes, follow
from .output import Json, complain, console, print_json, rows

if TYPE_CHECKING:
    from stemlab import SearchSpec, Study
    from stemlab.candidate import Candidates

NAME = "search"


def run(
    file: Annotated[Path, typer.Argument(help="The study file, such as search_spaces/conv3x3.yaml.")],
    out: Out = None,
    trials: Annotated[int | None, typer.Option(help="How many proposals to try.")] = None,
    engine: Engine = None,
    set_: Set = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the space and show it; train nothing.")] = False,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Search a space of stems and report the best, at matched cost."""
    import stemlab
    from stemlab.data.contents import in_lines
    from stemlab.running import load_search

    changed = changes(set_, {"search.trials": trials, "engine.kind": engine})
    if dry_run:
        _show_space(load_search(file, changed, in_lines(complain)), json)
        return
    follow(
        "search",
        lambda reporter: stemlab.search(file, out, changes=changed, resume=resume, reporter=reporter),
        _show,
        _as_json if json else None,
    )


def _show_space(candidates: Candidates[SearchSpec], json: bool) -> None:
    from stemlab.spec.files import show_path

    candidates.require_feasible()
    probe = candidates.probe()
    feasible = probe.feasible
    objections = [f"{show_path(path)}: {text}" for (path, text), _ in probe.objections.most_common(1)]
    errors = [abs(c.matched.error) for c in feasible if c.matched.error is not None]
    stems = [c.matched.cost.stem_flops_share for c in feasible]
    facts: dict[str, Any] = {
        "name": candidates.study.name,
        "holes": [hole.name for hole in candidates.holes],
        "points": candidates.size if candidates.size < float("inf") else None,
        "tried": probe.tried,
        "feasible": len(feasible),
        "commonest_objection": objections[0] if objections else None,
        "largest_match_error": max(errors, default=None),
        "stem_flops_share": [min(stems), max(stems)] if stems else None,
        "trials": candidates.study.search.trials * len(candidates.study.search.seeds),
    }
    if json:
        print_json(facts)
        return
    points = f"{facts['points']:,.0f}" if facts["points"] is not None else "infinitely many"
    print(f"{facts['name']}: {points} points, {len(feasible)} of {probe.tried} tried are feasible")
    for objection in objections:
        print(f"  commonest objection: {objection}")
    if errors:
        print(f"  matched within {max(errors):.2%} of the reference's cost")
    if stems:
        print(f"  the stem takes {min(stems):.1%} to {max(stems):.1%} of the flops")
    print(f"  a search would train {facts['trials']} models")


def _ranking(study: Study) -> Any:
    from stemlab.analysis.ranking import rank

    metric, sign = study.objective
    return rank(study.trials, metric, sign)


def _as_json(study: Study) -> dict[str, Any]:
    return {"ranking": rows(_ranking(study))}


def _show(study: Study) -> None:
    from rich.markup import escape
    from rich.table import Table

    ranking = _ranking(study)
    metric, _ = study.objective
    table = Table(title=f"{study.folder.path.name}: ranked by {metric} on the validation part", title_justify="left")
    table.add_column("#", justify="right")
    table.add_column("stem", overflow="fold")
    for heading in (metric, "test top1", "flops", "params", "stem", "match", "s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for place, row in enumerate(ranking.to_dict("records"), start=1):
        ok = row["status"] == "ok"
        table.add_row(
            str(place),
            escape(row["label"]),
            f"{row[metric]:.4f}" if ok else row["status"],
            f"{row['test_top1']:.4f}" if ok else "",
            human(row["flops"]) if row["flops"] == row["flops"] else "",
            human(row["params"]) if row["params"] == row["params"] else "",
            f"{row['stem_flops_share']:.1%}" if row["stem_flops_share"] == row["stem_flops_share"] else "",
            f"{row['match_error']:+.2%}" if row["match_error"] == row["match_error"] else "",
            f"{row['seconds']:.1f}" if row["seconds"] == row["seconds"] else "",
        )
    console().print(table)
    folder = study.folder.path
    print(f"report  {folder / 'report.html'}")
    if study.best is not None:
        print(f"best    {folder / 'best.json'}")
        print(f"next    stemlab build {folder / 'best.json'}")
