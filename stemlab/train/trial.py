"""Train and judge one model: the loop of a trial."""

from __future__ import annotations

import gc
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..builders import build_model
from ..data import load_digits
from ..errors import StemlabError
from ..matching import match
from ..probes import Observer
from ..records import Status, TrialRecord
from ..spec import Floor, TrialSpec
from .checkpoint import Checkpoint
from .run import JUDGED, Run, batch_of, evaluate
from .stopping import divergence, shortfall

Progress = Callable[[dict[str, Any]], None]


def run_trial(
    trial: TrialSpec,
    progress: Progress | None = None,
    device: str | None = None,
    *,
    until: int | None = None,
    floor: Floor | None = None,
    keep: Path | None = None,
) -> TrialRecord:
    """Train the trial's model and return its record; a run that diverges is a result like any other.

    Everything random follows from `trial.seed`: the same trial gives the same numbers on the same machine with the
    same number of threads, and torch's own generator is left as it was. `progress` gets each new row of the curve, and
    how many `epochs` there will be.

    Behind epoch `until` the trial pauses: its record is "pruned", and its state waits in the folder `keep` until it is
    run again. It then goes on from there, to the numbers of a run that never paused. Once it falls below the `floor`
    it is stopped for good.

    Where the memory does not hold a batch, the trial begins anew with half as many images at a time and the gradients
    added up, as often as needed; the metric `micro_batch` says how many it came to.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    training = _Training(trial, progress, device, until, floor, Checkpoint(keep, trial, device) if keep else None)
    kind = torch.device(device)
    with torch.random.fork_rng(devices=[kind] if kind.type == "cuda" else []):
        return training.run()


class _Training:
    """What one call of run_trial is about."""

    def __init__(
        self,
        trial: TrialSpec,
        progress: Progress | None,
        device: str,
        until: int | None,
        floor: Floor | None,
        place: Checkpoint | None,
    ) -> None:
        self.began = time.perf_counter()
        self.trial, self.progress, self.device = trial, progress, device
        self.until, self.floor, self.place = until, floor, place
        self.settled = match(trial.model)
        self.data = load_digits(trial.data, device)
        self.batch = batch_of(trial.train, self.data.train)
        self.saved = place.load() if place else None

    def run(self) -> TrialRecord:
        """Train with the whole batch at a time, or as much of it as the memory holds."""
        micro = self.saved[1]["micro"] if self.saved else self.batch
        while True:
            try:
                return self._attempt(micro)
            except torch.cuda.OutOfMemoryError as error:
                if micro == 1:
                    raise StemlabError(f"out of memory with one image at a time: {error}") from error
            # Not in the handler: the error's traceback holds all that has to go.
            self.saved, micro = None, (micro + 1) // 2
            gc.collect()
            torch.cuda.empty_cache()

    def _attempt(self, micro: int) -> TrialRecord:
        trial, spec, data = self.trial, self.trial.train, self.data
        run, curve, timed = self._begin(micro)
        model, observer, kept = run.model, run.observer, run.epochs
        judged = JUDGED if micro == self.batch else micro
        failure = None
        for epoch in range(1, spec.epochs + 1):
            if epoch > kept:
                before = time.perf_counter()
                train_loss = run.epoch()
                timed["training"] += time.perf_counter() - before
                measured = observer.end_epoch() if observer else {}
                failure = divergence(train_loss, epoch, trial.model.classes)
                if failure:
                    break
                top1, loss = evaluate(model, data.validation, spec, judged)
                if not math.isfinite(loss):
                    failure = f"the validation loss became {loss} in epoch {epoch}"
                    break
                row = {"epoch": epoch, "lr": run.lr, "train_loss": train_loss, "loss": loss, "top1": top1, **measured}
                curve.append(row)
                if self.progress:
                    self.progress({**row, "epochs": spec.epochs})
            short = shortfall(self.floor, curve[:epoch])
            if short:
                self._forget()
                return self._record("pruned", run, curve[:epoch], timed, error=short)
            if epoch == self.until and epoch < spec.epochs:
                if epoch > kept:
                    self._keep(run, curve, timed)
                return self._record("pruned", run, curve[:epoch], timed, until=epoch)

        test: dict[str, float] = {}
        if not failure:
            test_top1, test_loss = evaluate(model, data.test, spec, judged)
            test = {"test_top1": test_top1, **({"test_loss": test_loss} if math.isfinite(test_loss) else {})}
        found = observer.finish(failure) if observer else {}
        self._forget()
        return self._record("diverged" if failure else "ok", run, curve, timed, test, error=failure, probes=found)

    def _begin(self, micro: int) -> tuple[Run, list[dict[str, Any]], dict[str, float]]:
        """Return a run, its curve so far and the seconds it has had: as they were kept, or at their beginning."""
        trial = self.trial
        model = build_model(self.settled.model, seed=trial.seed).to(self.device)
        observer = Observer(trial, model, self.data) if trial.probes else None
        run = Run(model, trial.train, trial.seed, self.data.train, observer, micro)
        if self.saved:
            tensors, document = self.saved
            try:
                run.restore(tensors, document["run"])
            except (KeyError, ValueError, RuntimeError):  # the state of another model: a plug-in's layer has changed
                self.saved = None
                return self._begin(micro)
            return run, list(document["curve"]), dict(document["timed"])
        return run, [], {"training": 0.0, "before": 0.0}

    def _keep(self, run: Run, curve: list[dict[str, Any]], timed: dict[str, float]) -> None:
        if self.place is None:
            return
        tensors, state = run.state()
        document = {
            "run": state,
            "curve": curve,
            "micro": run.micro,
            "timed": {**timed, "before": self._seconds(timed)},
        }
        try:
            self.place.save(tensors, document)
        except OSError as error:
            self.place.remove()
            warnings.warn(f"{self.place.path}: cannot be written: {error}; the trial will begin anew", stacklevel=2)

    def _forget(self) -> None:
        if self.place is not None:
            self.place.remove()

    def _seconds(self, timed: dict[str, float]) -> float:
        return timed["before"] + time.perf_counter() - self.began

    def _record(
        self,
        status: Status,
        run: Run,
        curve: list[dict[str, Any]],
        timed: dict[str, float],
        test: dict[str, float] | None = None,
        **rest: Any,
    ) -> TrialRecord:
        metrics: dict[str, float] = {}
        if status != "diverged":
            last = curve[-1]
            metrics = {"top1": last["top1"], "top1_error": 1 - last["top1"], "loss": last["loss"], **(test or {})}
        if run.micro < self.batch:
            metrics["micro_batch"] = run.micro
        metrics["seconds"] = self._seconds(timed)
        metrics["images_per_second"] = run.images / timed["training"] if timed["training"] else 0.0
        return TrialRecord.of(
            self.trial,
            status,
            metrics=metrics,
            cost=self.settled.cost.as_dict(),
            match=self.settled.as_dict(),
            curve=curve,
            **rest,
        )
