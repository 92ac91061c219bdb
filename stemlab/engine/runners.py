"""Which runner an engine's kind stands for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..spec import EngineSpec
from . import slots
from .runner import Runner, retries_of


def check(engine: EngineSpec) -> str:
    """Return where trials will run, in words; EngineError, at once, where this machine cannot offer it."""
    if engine.kind == "ray":
        return f"a Ray cluster at {engine.address}" if engine.address else "a Ray cluster on this machine"
    if engine.machines:
        return ", ".join(f"{machine.user}@{machine.host}" for machine in engine.machines)
    if engine.kubernetes:
        from .manager import kubernetes

        kubernetes.require_cluster()
        return f"Kubernetes, namespace {engine.kubernetes.namespace}"
    return slots.plan(engine, 1)[0].describe()


def start(engine: EngineSpec, trials: int, keep: Path, note: Callable[[str], None]) -> Runner:
    """Start the runner of a study: for as many trials at a time as there may be, and as there is room for.

    `keep` is where trials of this machine keep their state. EngineError for what cannot be had.
    """
    retries = retries_of(engine)
    if engine.kind == "ray":
        from .ray_runner import RayRunner

        return RayRunner(engine, trials, retries, keep)
    if engine.kind == "nni":
        return _nni(engine, trials, keep, retries, note)
    from .embedded import EmbeddedRunner, InlineRunner

    places = slots.plan(engine, trials)
    return InlineRunner(places[0], keep) if engine.workers == 0 else EmbeddedRunner(places, keep, retries)


def _nni(engine: EngineSpec, trials: int, keep: Path, retries: int, note: Callable[[str], None]) -> Runner:
    from .manager import kubernetes, remote
    from .manager.runner import NniRunner
    from .manager.service import local

    if engine.kubernetes:
        kubernetes.start(engine.kubernetes, engine.gpus_per_trial or 0, keep.parent)
    if engine.machines:
        runner: NniRunner | remote.RemoteRunner = remote.start(engine, trials, keep, note)
    else:
        runner = NniRunner(local(slots.plan(engine, trials), keep), retries, engine.port)
    note(f"NNI's page, on this machine only: {runner.page}")
    return runner
