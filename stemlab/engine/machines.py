"""Other machines, looked at before anything is run on them: is the door open, is the same stemlab there?"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import EngineError, SpecError, short
from ..spec import EngineSpec, MachineSpec
from ..spec.files import Document, validate
from . import manifest, slots, ssh, survey

DECISIVE = ("stemlab", "torch", "torchvision", "timm", "einops")
"""What must be of the same version there: trials that it computed otherwise could not be compared."""

_PATIENCE = 180
"""Seconds that a survey may take; importing torch from a slow disk takes a while."""

_CLOCK = 60.0
"""Seconds that a clock may differ before it is worth a note: nothing but the dates in logs depends on it."""


@dataclass(frozen=True)
class Machine:
    """A machine that let us in: what it has, why it cannot be used (`problems`), and what else is odd (`notes`)."""

    spec: MachineSpec
    versions: dict[str, str | None]
    hardware: dict[str, Any] | None
    clock_offset: float
    disk_free_gib: float
    torch: str | None
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """user@host, with the port where it is not 22."""
        return ssh.place(self.spec)


def examine(machine: MachineSpec, torch: bool = False) -> Machine:
    """Look at a machine; with `torch` also import it there. EngineError where we do not get as far as Python."""
    parameters = json.dumps({"packages": manifest.PACKAGES, "torch": torch})
    # A JSON string is a Python string: the parameters are data to the program as well.
    program = f"{Path(survey.__file__).read_text(encoding='utf-8')}\nmain({json.dumps(parameters)})\n"
    try:
        ran = subprocess.run(
            ssh.command(machine, ssh.PROGRAM),
            input=f"{machine.python}\n{program}",
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"{ssh.place(machine)}: no answer within {_PATIENCE} seconds") from None
    now = time.time()
    lines = [line for line in ran.stdout.splitlines() if line.startswith(survey.MARK)]
    if ran.returncode or not lines:
        raise EngineError(ssh.explain(machine, ran.returncode, ran.stderr))
    found = json.loads(lines[-1].removeprefix(survey.MARK))
    return _judged(machine, found, now)


def _judged(machine: MachineSpec, found: dict[str, Any], now: float) -> Machine:
    ours, theirs = manifest.versions(), found["versions"]
    pip = f"{machine.python} -m pip install"
    problems: list[str] = []
    notes: list[str] = []
    for name in manifest.PACKAGES:
        own, there = _public(ours[name]), _public(theirs[name])
        if there is None:
            problems.append(f"{name} is missing there: {pip} {name}{f'=={own}' if own else ''}")
        elif own is not None and there != own:
            line = f"{name} is {there} there and {own} here: {pip} {name}=={own}"
            (problems if name in DECISIVE else notes).append(line)
    if not problems and found["source"] != survey.source():
        problems.append("stemlab there has the same version but another source: install the same one on both")
    if found["hardware"] is None and not problems:
        problems.append(f"stemlab does not import there: {found['broken']}")
    gpus = (found["hardware"] or {}).get("gpus")
    if gpus and not found.get("torch", "cuda").startswith("cuda"):
        problems.append(f"it has {len(gpus)} GPUs but torch sees none: install a torch build with CUDA for its driver")
    offset = found["clock"] - now
    if abs(offset) > _CLOCK:
        notes.append(f"its clock is {offset:+.0f} s from ours; timedatectl set-ntp true")
    if found["disk_free_gib"] < 1:
        problems.append(f"only {found['disk_free_gib']} GiB of disk are free in its home folder")
    return Machine(
        machine,
        theirs,
        found["hardware"],
        offset,
        found["disk_free_gib"],
        found.get("torch"),
        tuple(problems),
        tuple(notes),
    )


def _public(version: str | None) -> str | None:
    """Return a version without the build it names: 2.10.0+cpu and 2.10.0+cu130 compute the same trials."""
    return version if version is None else version.partition("+")[0]


def parse(text: str, python: str, key: str | None = None) -> MachineSpec:
    """Return the machine of user@host or user@host:port; SpecError where it is none."""
    parts = re.fullmatch(r"(?P<user>[^@]+)@(?:\[(?P<six>.+)\]|(?P<host>[^@]+?))(?::(?P<port>\d{1,9}))?", text)
    if parts is None:
        raise SpecError(f"--machine {short(text)}: expected user@host or user@host:port")
    given: dict[str, Any] = {"user": parts["user"], "host": parts["six"] or parts["host"], "python": python}
    given |= {"port": int(parts["port"])} if parts["port"] else {}
    given |= {} if key is None else {"key": key}
    return validate(MachineSpec, Document(given, f"--machine {text}"))


def report(specs: Sequence[MachineSpec]) -> list[dict[str, Any]]:
    """Return what `stemlab doctor` shows of each machine; nothing but its problems where it did not let us in."""
    with ThreadPoolExecutor(len(specs)) as pool:
        return list(pool.map(_report, specs))


def _report(spec: MachineSpec) -> dict[str, Any]:
    shown: dict[str, Any] = {"machine": ssh.place(spec), "python": spec.python}
    empty = dict.fromkeys(("versions", "hardware", "torch", "clock_offset", "disk_free_gib"))
    try:
        machine = examine(spec, torch=True)
    except EngineError as error:
        return {**shown, **empty, "problems": [str(error)], "notes": []}
    found = asdict(machine)
    return shown | {name: found[name] for name in (*empty, "problems", "notes")}


def require(specs: Sequence[MachineSpec]) -> list[Machine]:
    """Look at all machines at once; EngineError with every reason where one of them cannot be used."""
    if not 1 <= len(specs) == len({(spec.host, spec.port, spec.user) for spec in specs}):
        raise EngineError("engine.machines: the same user@host:port is listed twice")
    with ThreadPoolExecutor(len(specs)) as pool:
        looks = [pool.submit(examine, spec) for spec in specs]
    machines, wrong = [], []
    for look in looks:
        try:
            machine = look.result()
        except EngineError as error:
            wrong.append(str(error))
            continue
        machines.append(machine)
        wrong += [f"{machine.name}: {problem}" for problem in machine.problems]
    if wrong:
        raise EngineError("\n".join(wrong))
    return machines


def places(engine: EngineSpec, machines: Sequence[Machine], concurrency: int) -> list[tuple[MachineSpec, slots.Slot]]:
    """Return the slots of all machines, one of each machine in turn, as many as the study can use at a time.

    What the engine says of GPUs and threads holds on each of them; `workers` is how many trials run at a time in all.
    """
    each = [(machine.spec, _slots(engine, machine)) for machine in machines]
    longest = max(len(own) for _, own in each)
    in_turn = [(spec, own[i]) for i in range(longest) for spec, own in each if i < len(own)]
    if engine.workers is None:
        return in_turn[:concurrency]
    if engine.workers > len(in_turn):
        raise EngineError(f"engine.workers (={engine.workers}): the machines have room for {len(in_turn)} at a time")
    return in_turn[: engine.workers]


def _slots(engine: EngineSpec, machine: Machine) -> list[slots.Slot]:
    hardware = machine.hardware or {}
    gpus = [slots.Gpu(gpu["index"], gpu["name"], gpu["memory_mib"]) for gpu in hardware["gpus"]]
    try:
        return slots.plan(engine.replace(workers=None), sys.maxsize, gpus, hardware["cores"])
    except EngineError as error:
        raise EngineError(f"{machine.name}: {error}") from None
