"""Train and judge one model: the loop of a trial."""

from __future__ import annotations

import gc
import json
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..builders import build_model
from ..builders.hub import save
from ..data.load import load
from ..errors import StemlabError
from ..matching import match
from ..probes import Observer
from ..records import Status, TrialRecord
from ..spec import Floor, Order, TrialSpec
from . import latency, recipe
from .checkpoint import Checkpoint
from .ranks import ALONE, Ranks
from .run import JUDGED, Run, evaluate, full_batch
from .stopping import divergence, misjudged, shortfall

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Saving:
    """What a training leaves on the disk beside its record.

    `folder`: where its state is kept for as long as it may be gone on with. `every`: the state is kept once so many
    seconds have passed since it was kept last, in the middle of an epoch too (with several processes, or probes,
    between two epochs); None: only where the trial pauses. `model`: a folder for the trained model. With it the state
    stays until the caller has put the record in safety.
    """

    folder: Path
    every: float | None = None
    model: Path | None = None

    def to_json(self) -> str:
        """Return it as another process can read it."""
        return json.dumps({"folder": str(self.folder), "every": self.every, "model": self.model and str(self.model)})

    @classmethod
    def from_json(cls, text: str) -> Saving:
        """Return what `to_json` wrote."""
        said = json.loads(text)
        return cls(Path(said["folder"]), said["every"], said["model"] and Path(said["model"]))


def outcome(row: dict[str, Any], test: tuple[float, float] | None) -> dict[str, float]:
    """Return the metrics of a trial by the last row of its curve, and by accuracy and loss on the test part."""
    metrics = {"top1": row["top1"], "top1_error": 1 - row["top1"], "loss": row["loss"]}
    if test is not None:
        metrics["test_top1"] = test[0]
        if math.isfinite(test[1]):
            metrics["test_loss"] = test[1]
    return metrics


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

    Latencies that the trial asks for are measured first; outside their bounds it is "infeasible", and not trained.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    saving = Saving(keep) if keep else None
    return Training(Order(trial=trial, until=until, floor=floor), progress, device, saving).run()


class Training:
    """The training that an order asks for, by this process or by several (`ranks`) that do the same in step.

    `micro` is how many images each takes at a time. `steps` is told behind each update how many there were, and how
    many there will be.
    """

    def __init__(
        self,
        order: Order,
        progress: Progress | None,
        device: str,
        saving: Saving | None,
        ranks: Ranks = ALONE,
        steps: Callable[[int, int], None] | None = None,
    ) -> None:
        self.began = time.perf_counter()
        self.trial, self.until, self.floor = order.trial, order.until, order.floor
        self.progress, self.device, self.saving = progress, device, saving
        self.ranks, self.steps = ranks, steps
        self.settled = match(self.trial.model)
        self.data = load(self.trial.data, device, self.trial.train.augment)
        self.share = self.micro = -(-full_batch(self.trial) // ranks.count)
        self.place = Checkpoint(saving.folder, self.trial, device, ranks.count) if saving else None
        self.kept_at = time.perf_counter()
        self.saved = self.place.load() if self.place else None
        self.latencies: dict[str, float] = dict(self.saved[1]["latencies"]) if self.saved else {}

    def run(self, micro: int | None = None) -> TrialRecord:
        """Train and return the record: with `micro` images at a time from the beginning, or as many as memory holds.

        Of several processes the first one's record counts; torch's OutOfMemoryError is raised where one of them has
        too little memory.
        """
        self._set(micro)
        kind = torch.device(self.device)
        with torch.random.fork_rng(devices=[kind] if kind.type == "cuda" else []):
            return self._infeasible() or self._fitting()

    def _set(self, micro: int | None) -> None:
        if micro is not None:
            self.saved, self.micro = None, micro
        elif self.saved:
            self.micro = self.saved[1]["micro"]

    def _infeasible(self) -> TrialRecord | None:
        """Measure the latencies where they have not been; return the record of a trial that is outside its bounds."""
        spec, objection = self.trial.latency, None
        if spec is not None and self.ranks.rank == 0:
            if not self.latencies:
                self.latencies = latency.measure(self.settled.model, self.trial.train, spec.batch, self.device)
            objection = latency.objection(spec, self.latencies)
        # Others may not go on, or write what is still to be read, before all have come here.
        if not self.ranks.any(objection is not None, self.device):
            return None
        return self._record("infeasible", {"seconds": time.perf_counter() - self.began}, error=objection)

    def _fitting(self) -> TrialRecord:
        """Train with as much of a batch at a time as the memory holds."""
        while True:
            try:
                return self._attempt()
            except torch.cuda.OutOfMemoryError as error:
                if self.ranks.count > 1:
                    raise
                if self.micro == 1:
                    raise StemlabError(f"out of memory with one image at a time: {error}") from error
            # Not in the handler: the error's traceback holds all that has to go.
            self._set((self.micro + 1) // 2)
            gc.collect()
            torch.cuda.empty_cache()

    def _attempt(self) -> TrialRecord:
        trial, spec, data = self.trial, self.trial.train, self.data
        run, curve, timed = self._begin()
        observer, kept = run.observer, run.epochs - (run.step > 0)
        judged = JUDGED if self.micro == self.share else self.micro
        failure = None
        for epoch in range(1, spec.epochs + 1):
            if epoch > kept:
                before = time.perf_counter()
                train_loss = run.epoch(partial(self._after_step, run, curve, timed, before))
                timed["training"] += time.perf_counter() - before
                measured = observer.end_epoch() if observer else {}
                failure = divergence(train_loss, epoch, trial.model.classes)
                if failure:
                    break
                top1, loss = evaluate(run.judged, data.validation, spec, judged, self.ranks)
                failure = misjudged(loss, epoch)
                if failure:
                    break
                row = {"epoch": epoch, "lr": run.lr, "train_loss": train_loss, "loss": loss, "top1": top1, **measured}
                curve.append(row)
                if self.progress:
                    self.progress({**row, "epochs": spec.epochs})
                if self._is_due():
                    self._keep(run, curve, timed)
            short = shortfall(self.floor, curve[:epoch])
            if short:
                self._forget()
                return self._trained("pruned", run, curve[:epoch], timed, error=short)
            if epoch == self.until and epoch < spec.epochs:
                if epoch > kept:
                    self._keep(run, curve, timed)
                return self._trained("pruned", run, curve[:epoch], timed, until=epoch)

        test = None if failure else evaluate(run.judged, data.test, spec, judged, self.ranks)
        found = observer.finish(failure) if observer else {}
        if self.saving is None or self.saving.model is None:
            self._forget()
        elif not failure and self.ranks.rank == 0:
            save(run.judged, trial.model, self.saving.model, self.data.preprocessing)
        return self._trained("diverged" if failure else "ok", run, curve, timed, test, error=failure, probes=found)

    def _begin(self) -> tuple[Run, list[dict[str, Any]], dict[str, float]]:
        """Return a run, its curve so far and the seconds it has had: as they were kept, or at their beginning."""
        trial = self.trial
        model = build_model(self.settled.model, seed=trial.seed, **recipe.options(trial.train)).to(self.device)
        observer = Observer(trial, model, self.data) if trial.probes and self.ranks.rank == 0 else None
        run = Run(model, trial.train, trial.seed, self.data.train, observer, self.micro, self.ranks)
        if observer:
            observer.model = run.judged
        if self.saved:
            tensors, document = self.saved
            try:
                run.restore(tensors, document["run"])
            except (KeyError, ValueError, RuntimeError):  # the state of another model: a plug-in's layer has changed
                self.saved = None
                return self._begin()
            return run, list(document["curve"]), dict(document["timed"])
        return run, [], {"training": 0.0, "before": 0.0}

    def _after_step(self, run: Run, curve: list[dict[str, Any]], timed: dict[str, float], before: float) -> None:
        if self.steps:
            self.steps(run.updates, run.steps * self.trial.train.epochs)
        # In the middle of an epoch each process has a random stream of its own, and a probe is no state.
        if run.step and self.ranks.count == 1 and run.observer is None and self._is_due():
            self._keep(run, curve, {**timed, "training": timed["training"] + time.perf_counter() - before})

    def _is_due(self) -> bool:
        every = None if self.saving is None else self.saving.every
        return every is not None and time.perf_counter() - self.kept_at >= every

    def _keep(self, run: Run, curve: list[dict[str, Any]], timed: dict[str, float]) -> None:
        if self.place is None or self.ranks.rank:
            return
        so_far = self._seconds(timed)
        tensors, state = run.state()
        document = {
            "run": state,
            "curve": curve,
            "micro": run.micro,
            "latencies": self.latencies,
            "timed": {**timed, "before": so_far},
        }
        try:
            self.place.save(tensors, document)
        except OSError as error:
            self.place.remove()
            warnings.warn(f"{self.place.path}: cannot be written: {error}; the trial will begin anew", stacklevel=2)
        # A trial that goes on knows nothing of how long saving took, so the record of its pause has it not either.
        self.began += self._seconds(timed) - so_far
        self.kept_at = time.perf_counter()

    def _forget(self) -> None:
        if self.place is not None and self.ranks.rank == 0:
            self.place.remove()

    def _seconds(self, timed: dict[str, float]) -> float:
        return timed["before"] + time.perf_counter() - self.began

    def _trained(
        self,
        status: Status,
        run: Run,
        curve: list[dict[str, Any]],
        timed: dict[str, float],
        test: tuple[float, float] | None = None,
        **rest: Any,
    ) -> TrialRecord:
        metrics = {} if status == "diverged" else outcome(curve[-1], test)
        if run.micro < self.share:
            metrics["micro_batch"] = run.micro
        metrics["seconds"] = self._seconds(timed)
        metrics["images_per_second"] = run.images / timed["training"] if timed["training"] else 0.0
        return self._record(status, metrics, curve=curve, **rest)

    def _record(self, status: Status, metrics: dict[str, float], **rest: Any) -> TrialRecord:
        return TrialRecord.of(
            self.trial,
            status,
            metrics={**metrics, **self.latencies},
            cost=self.settled.cost.as_dict(),
            match=self.settled.as_dict(),
            **rest,
        )
