"""`stemlab ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemlab.quantities import duration, human

from .output import complain, console, print_json
from .search import resume_command

if TYPE_CHECKING:
    from stemlab import Study
    from stemlab.plan import Plan

NAME = "ablate"


def run(
    file: Annotated[Path, typer.Argument(help="The study file, such as search_spaces/scaled_relu.yaml.")],
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="The study folder; runs/<name>, or the next free runs/<name>-2, ..., unless given."
        ),
    ] = None,
    engine: Annotated[str | None, typer.Option(help="Who runs the trials: embedded, nni or ray.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change one value; may be repeated."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the arms with their cost, and how long it will take; train nothing.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted study: that of --out, or the last runs/<name>.")
    ] = False,
    add_seeds: Annotated[
        int, typer.Option(metavar="N", help="Train N more seeds of a study: that of --out, or the last runs/<name>.")
    ] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Train everything, also what a study beside this one has on record.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")] = False,
) -> None:
    """Train every arm of a study on the same draws and seeds, and report what differs."""
    import stemlab
    from stemlab.running import load_ablation

    changes = list(set_ or [])
    changes += [f"engine.kind={engine}"] if engine is not None else []
    if dry_run:
        _show_plan(load_ablation(file, changes), json)
        return

    from .live import watcher

    with watcher("ablation") as reporter:
        try:
            study = stemlab.ablate(
                file, out, changes=changes, resume=resume, add_seeds=add_seeds, reuse=not fresh, reporter=reporter
            )
        except KeyboardInterrupt:
            reporter.close()
            complain(
                f"interrupted: {reporter.done} trials are recorded; go on with\n  {resume_command(reporter.folder)}"
            )
            raise typer.Exit(130) from None
    if json:
        print_json(_as_json(study))
    else:
        _show(study)
    if study.best is None:
        complain(f"error: no trial finished well; see the errors in {study.folder.path / 'report.html'}")
        raise typer.Exit(1)


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
    import json

    best = study.best
    return {
        "folder": str(study.folder.path),
        "report": str(study.folder.path / "report.html"),
        "best": best.canonical() if best else None,
        "comparison": json.loads(study.compare().frame.to_json(orient="records")),
        "claims": json.loads(study.claims().frame.to_json(orient="records")),
    }


def _show(study: Study) -> None:
    print(study.compare())
    if study.ablation.claims:
        print(study.claims())
    folder = study.folder.path
    print(f"report  {folder / 'report.html'}")
    print(f"more    stemlab ablate {folder / 'study.yaml'} --out {folder} --add-seeds 2")
