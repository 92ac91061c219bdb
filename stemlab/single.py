"""train_model(): one model, from its spec to its trained weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from . import matching
from .api import Source, load_document
from .data import contents
from .errors import InfeasibleError, SpecError
from .records import TrainingFolder, TrialRecord, folder_for
from .spec import DataSpec, ModelSpec, Order, TrainSpec, TrialSpec
from .spec.files import Document, override, read, validate
from .spec.presets import PRESETS

Section = str | os.PathLike[str] | dict[str, Any]

EVERY = 60.0
"""Seconds between two states that a training keeps to go on from, unless told otherwise."""


class Watcher(Protocol):
    """Who watches a model train."""

    def preparing(self, what: str, done: int, total: int) -> None:
        """Before anything is trained: something was done to so many images of the data."""

    def begin(self, folder: Path, trial: TrialSpec, device: str) -> None:
        """The training begins, or goes on."""

    def steps(self, done: int, total: int) -> None:
        """So many updates are done."""

    def epoch(self, row: dict[str, Any]) -> None:
        """An epoch is done."""

    def note(self, text: str) -> None:
        """Something worth a line."""


class _Nobody:
    def preparing(self, what: str, done: int, total: int) -> None:
        pass

    def begin(self, folder: Path, trial: TrialSpec, device: str) -> None:
        pass

    def steps(self, done: int, total: int) -> None:
        pass

    def epoch(self, row: dict[str, Any]) -> None:
        pass

    def note(self, text: str) -> None:
        pass


def load_trial(
    model: Source,
    data: Section,
    recipe: Section | None = None,
    seed: int = 0,
    changes: Sequence[str] = (),
    preparing: contents.Preparing | None = None,
) -> TrialSpec:
    """Return the trial that trains a model on data by a recipe; SpecError with file:line where it cannot be.

    `data` is the name of a data set, a folder of images, a file with the fields of a DataSpec, or such a dict; `recipe`
    a preset, a file or a dict of a TrainSpec. `changes` are `path=value` as after --set, of model, data or train. The
    model is given the classes of the data, and the data is given the size of the model's images unless it says its own.
    """
    document = Document({}, "<trial>")
    for name, section in (("model", load_document(model)), ("data", _data(data)), ("train", _recipe(recipe))):
        document.data[name] = section.data
        document.places[name,] = section.place(())
        document.places |= {(name, *path): place for path, place in section.places.items()}
    for change in changes:
        document = override(document, change)
    document = contents.with_contents(document, preparing)
    plain = document.data
    size = plain["model"].get("image_size", ModelSpec.model_fields["image_size"].default)
    if isinstance(plain["data"], dict):
        plain["data"] = {"image_size": size, **plain["data"]}
    read_data = validate(DataSpec, document, ("data",))
    plain["model"] = {**plain["model"], "image_size": read_data.image_size, "classes": read_data.class_count}
    return TrialSpec(
        model=validate(ModelSpec, document, ("model",)),
        data=read_data,
        train=validate(TrainSpec, document, ("train",)),
        seed=seed,
    )


def _data(source: Section) -> Document:
    if isinstance(source, dict):
        return Document(source, "<data>")
    text = os.fspath(source)
    if os.path.isdir(text):
        return Document({"name": f"folder:{text}"}, "<data>")
    return read(text) if _is_file(text) else Document({"name": text}, "<data>")


def _recipe(source: Section | None) -> Document:
    if source is None or isinstance(source, dict):
        return Document(source or {}, "<recipe>")
    text = os.fspath(source)
    return Document({"preset": text}, "<recipe>") if text in PRESETS or not _is_file(text) else read(text)


def _is_file(text: str) -> bool:
    return Path(text).suffix in (".yaml", ".yml", ".json")


def train_model(
    model: Source,
    data: Section,
    recipe: Section | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    seed: int = 0,
    changes: Sequence[str] = (),
    device: str | None = None,
    processes: int = 1,
    every: float = EVERY,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> TrialRecord:
    """Train one model and return its record; its weights are in the folder `out`, for `stemlab.build` and timm.

    `model`, `data`, `recipe`, `seed` and `changes` are as in `load_trial`. `out` is `runs/<name>` unless given, or the
    next of `runs/<name>-2` and so on that is free. `device` is "cuda" where there is a GPU, else "cpu"; on several GPUs
    so many `processes` share each batch. Its state is kept `every` so many seconds; what was interrupted or killed goes
    on from there with `resume`, and on a CPU, with as many threads, ends with the same weights bit by bit.
    """
    watcher = watcher or _Nobody()
    trial = load_trial(model, data, recipe, seed, changes, watcher.preparing)
    if processes < 1 or every < 0:
        raise SpecError(f"expected 1 process or more and 0 seconds or more, got {processes} and {every:g}")
    try:
        matching.match(trial.model)
    except InfeasibleError as error:
        raise SpecError(f"{model}: {error}") from None
    device = _device(device, processes)
    folder = TrainingFolder(folder_for(_name(model), out, resume))
    folder.open_to_write(trial.canonical(), resume)
    try:
        watcher.begin(folder.path, trial, device)
        if done := folder.records():
            watcher.note("was finished before")
            return done[-1]
        record = _train(trial, folder, device, processes, every, watcher)
        folder.append(record)
        folder.forget_states()
        return record
    finally:
        folder.close()


def _train(
    trial: TrialSpec, folder: TrainingFolder, device: str, processes: int, every: float, watcher: Watcher
) -> TrialRecord:
    from .engine import manifest
    from .train import Saving, Training, run_distributed

    folder.write_json("manifest.json", {"versions": manifest.versions(), "hardware": manifest.hardware()})
    saving = Saving(folder.path / "trials", every, folder.path)
    _tell_of_data(trial.data, folder, watcher)
    order = Order(trial=trial)
    if processes > 1:
        return run_distributed(order, watcher.epoch, processes, saving, device)
    return Training(order, watcher.epoch, device, saving, steps=watcher.steps).run()


def _tell_of_data(data: DataSpec, folder: TrainingFolder, watcher: Watcher) -> None:
    """Have a set made that is made of formulas; say which images of a folder are skipped, and list them."""
    contents.prepare(data, watcher.preparing)
    contents.tell(data.canonical(), folder, watcher.note)


def _device(device: str | None, processes: int) -> str:
    """Return the device to train on; SpecError where there is no such."""
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SpecError(f"device (={device}): cannot be used: {str(error).splitlines()[0]}") from None
    if device.startswith("cuda") and processes > torch.cuda.device_count():
        raise SpecError(f"{processes} processes need as many GPUs, and there are {torch.cuda.device_count()}")
    return device


def _name(model: Source) -> str:
    if isinstance(model, (str, os.PathLike)):
        return Path(model).stem or "model"
    return "model"
