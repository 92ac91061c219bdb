"""`stemlab train`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemlab.quantities import human

from .following import Set, resume_command
from .output import Json, complain, console, print_json

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from stemlab.records import TrialRecord
    from stemlab.spec import TrialSpec

NAME = "train"


def run(
    spec: Annotated[str, typer.Argument(help="A model: spec.json or .yaml, best.json, or a name from the zoo.")],
    data: Annotated[
        str, typer.Option(help="digits, fractals, a folder of images, one of timm's sets (torch/...), or a YAML file.")
    ],
    recipe: Annotated[
        str | None, typer.Option(help="deit, vit_c_imagenet, or a YAML file with the fields of a recipe.")
    ] = None,
    set_: Set = None,
    seed: Annotated[int, typer.Option(help="The seed of weights, order and augmentation.")] = 0,
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="The folder of the model; runs/<name>, or the next free one, unless given."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cuda or cpu; a GPU where there is one.")] = None,
    processes: Annotated[int, typer.Option(help="How many processes share each batch: one for each GPU.")] = 1,
    every: Annotated[float, typer.Option(help="Seconds between two states that are kept to go on from.")] = 60.0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where it was interrupted: in --out, or the last runs/<name>.")
    ] = False,
    json: Json = False,
) -> None:
    """Train one model on your data, and leave it as timm reads it."""
    from stemlab.single import train_model

    watcher = _Bar() if sys.stderr.isatty() else _Lines()
    try:
        record = train_model(
            spec,
            data,
            recipe,
            out=out,
            seed=seed,
            changes=set_ or [],
            device=device,
            processes=processes,
            every=every,
            resume=resume,
            watcher=watcher,
        )
    except KeyboardInterrupt:
        watcher.close()
        complain(f"interrupted; go on with\n  {resume_command(watcher.folder)}")
        raise typer.Exit(130) from None
    finally:
        watcher.close()
    folder = watcher.folder
    if json:
        print_json({"folder": str(folder) if folder else None, "status": record.status, "metrics": record.metrics})
    else:
        _show(record, folder)
    if record.status != "ok":
        complain(f"error: the training {record.status}: {record.error}")
        raise typer.Exit(1)


def _show(record: TrialRecord, folder: Path | None) -> None:
    metrics = record.metrics
    if record.status == "ok":
        print(
            f"top1    {metrics['top1']:.4f} on the validation part, {metrics['test_top1']:.4f} on the test part, "
            f"behind {len(record.curve)} epochs"
        )
    if "images_per_second" in metrics:
        print(f"took    {metrics['seconds']:.1f} s, {metrics['images_per_second']:.0f} images a second in training")
    if folder is not None and record.status == "ok":
        print(f"wrote   {folder / 'config.json'}, {folder / 'model.safetensors'}, {folder / 'records.jsonl'}")
        print(f"next    import stemlab, timm; timm.create_model('local-dir:{folder}', pretrained=True)")


class _Lines:
    """One line an epoch."""

    def __init__(self) -> None:
        from stemlab.data.contents import in_lines

        self.folder: Path | None = None
        self._in_lines = in_lines(self.note)

    def preparing(self, what: str, done: int, total: int) -> None:
        """Say every ten seconds how far the data are prepared."""
        self._in_lines(what, done, total)

    def begin(self, folder: Path, trial: TrialSpec, device: str) -> None:
        """Say what is trained, and where it goes."""
        from stemlab.matching import match

        self.folder = folder
        cost, parts = match(trial.model).cost, trial.data.part_sizes
        self.note(
            f"{human(cost.flops)} multiply-adds, {human(cost.params)} parameters; {parts[0]} images to train on, "
            f"{parts[1]} to validate, {parts[2]} to test; {trial.train.epochs} epochs on {device}, in {folder}"
        )

    def steps(self, done: int, total: int) -> None:
        """Say nothing."""

    def epoch(self, row: dict[str, Any]) -> None:
        """Say how an epoch went."""
        self.note(
            f"[{row['epoch']}/{row['epochs']}] training loss {row['train_loss']:.4f}, "
            f"validation loss {row['loss']:.4f}, top1 {row['top1']:.4f}"
        )

    def note(self, text: str) -> None:
        """Print a line."""
        complain(text)

    def close(self) -> None:
        """Nothing to put away."""


class _Bar(_Lines):
    """A bar of all updates below a line an epoch, and one of what is prepared before."""

    def __init__(self) -> None:
        super().__init__()
        self.progress: Progress | None = None
        self.bars: dict[str, TaskID] = {}

    def preparing(self, what: str, done: int, total: int) -> None:
        """Move the bar of what is prepared."""
        self._move(what, done, total)

    def steps(self, done: int, total: int) -> None:
        """Move the bar of updates."""
        self._move("updates", done, total)

    def _move(self, what: str, done: int, total: int) -> None:
        if self.progress is None:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            self.progress = Progress(*columns, console=console(stderr=True), transient=True)
            self.progress.start()
        if what not in self.bars:
            self.bars[what] = self.progress.add_task(what, total=total)
        self.progress.update(self.bars[what], completed=done, visible=done < total)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        if self.progress is None:
            complain(text)
        else:
            self.progress.console.print(text, markup=False)

    def close(self) -> None:
        """Take the bar away."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
