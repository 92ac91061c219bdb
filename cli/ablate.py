"""`stemlab ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemlab.quantities import duration, human

from .following import Engine, Out, Resume, Set, changes, follow
from .output import Json, complain, console, print_json, rows

if TYPE_CHECKING:
    from stemlab import Study
    from stemlab.plan import Plan

NAME = "ablate"


def run(
    file: Annotated[Path, typer.Argument(help="The study file, such as search_spaces/scaled_relu.yaml.")],
    out: Out = None,
    engine: Engine = None,
    set_: Set = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the arms with their cost, and how long it will take; train nothing.")
    ] = False,
    resume: Resume = False,
    add_seeds: Annotated[
        int, typer.Option(metavar="N", help="Train N more seeds of a study: that of --out, or the last runs/<name>.")
    ] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Train everything, also what a study beside this one has on record.")
    ] = False,
    json: Json = False,
) -> None:
    """Train every arm of a study on the same draws and seeds, and report what differs."""
    import stemlab
    from stemlab.data.contents import in_lines
    from stemlab.running import load_ablation

    changed = changes(set_, {"engine.kind": engine})
    if dry_run:
        _show_plan(load_ablation(file, changed, in_lines(complain)), json)
        return
    follow(
        "ablation",
        lambda reporter: stemlab.ablate(
            file, out, changes=changed, resume=resume, add_seeds=add_seeds, reuse=not fresh, reporter=reporter
        ),
        _show,
        _as_json if json else None,
    )


def _show_plan(plan: Plan, json: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    from stemlab.running import time_needed

    seconds, slots = time_needed(plan)
    arms: list[dict[str, Any]] = [
        {
            "arm": arm.label,
            "flops": candidate.matched.cost.flops,
            "params": candidate.matched.cost.params,
            "activations": candidate.matched.cost.activations,
            "stem_flops_share": candidate.matched.cost.stem_flops_share,
            "match_error": candidate.matched.error,
            "seconds": each,
        }
        for arm, candidate, each in zip(plan.design.arms, plan.arms, seconds, strict=True)
    ]
    draws, seeds = len(plan.design.draws), len(plan.study.ablate.seeds)
    facts: dict[str, Any] = {
        "name": plan.study.name,
        "design": plan.design.note,
        "factors": {factor.name: list(factor.levels) for factor in plan.design.factors},
        "nuisances": [nuisance.name for nuisance in plan.design.nuisances],
        "draws": draws,
        "seeds": seeds,
        "trials": plan.total,
        "at_a_time": slots,
        "seconds": sum(seconds) * draws * seeds / slots,
        "arms": arms,
    }
    if json:
        print_json(facts)
        return
    print(f"{facts['name']}: {len(arms)} arms x {draws} draws x {seeds} seeds = {plan.total} trials")
    print(f"  {facts['design']}")
    table = Table()
    table.add_column("arm", overflow="fold")
    for heading in ("flops", "params", "activations", "stem", "match", "s a trial"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in arms:
        table.add_row(
            escape(row["arm"]),
            *(human(row[name]) for name in ("flops", "params", "activations")),
            f"{row['stem_flops_share']:.1%}",
            "" if row["match_error"] is None else f"{row['match_error']:+.2%}",
            f"{row['seconds']:.1f}",
        )
    console().print(table)
    print(f"  about {duration(facts['seconds'])} for all, {slots} at a time, from a few measured steps of each arm")


def _as_json(study: Study) -> dict[str, Any]:
    return {"comparison": rows(study.compare().frame), "claims": rows(study.claims().frame)}


def _show(study: Study) -> None:
    print(study.compare())
    if study.ablation.claims:
        print(study.claims())
    folder = study.folder.path
    print(f"report  {folder / 'report.html'}")
    print(f"more    stemlab ablate {folder / 'study.yaml'} --out {folder} --add-seeds 2")
