"""`stemlab doctor`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from .output import Json, print_json

NAME = "doctor"


def run(
    machine: Annotated[
        list[str] | None,
        typer.Option(metavar="USER@HOST[:PORT]", help="A machine to reach by SSH; may be repeated."),
    ] = None,
    python: Annotated[str, typer.Option(help="The interpreter on that machine.")] = sys.executable,
    key: Annotated[str | None, typer.Option(help="The private key that it lets in; ~/.ssh/id_ed25519.")] = None,
    json: Json = False,
) -> None:
    """Check this machine: versions, GPUs, NNI's tuners, disk; what is missing and how to get it.

    With --machine check others instead, as a study with `engine.service: remote` does before it runs anything there.
    """
    if machine:
        _check_others(machine, python, key, json)
        return
    from stemlab.engine.checkup import checkup

    found = checkup()
    if json:
        print_json(found)
    else:
        for name, version in found["versions"].items():
            print(f"{name:<15} {version or 'missing'}")
        _print_hardware(found["hardware"])
        print(f"{'torch uses':<15} {found['torch']}")
        print(f"{'disk here':<15} {found['disk_free_gib']} GiB free")
        for name, result in found["tuners"].items():
            print(f"{'tuner ' + name:<15} {result}")
        for problem in found["problems"]:
            print(f"PROBLEM         {problem}")
        print("all is well" if not found["problems"] else f"{len(found['problems'])} problems")
    if found["problems"]:
        raise typer.Exit(1)


def _print_hardware(hardware: dict[str, Any]) -> None:
    print(f"{'processor':<15} {hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB")
    gpus = ", ".join(f"{gpu['index']}: {gpu['name']} ({gpu['memory_mib']} MiB)" for gpu in hardware["gpus"])
    print(f"{'GPUs':<15} {gpus or 'none found; trials run on the CPU'}")


def _check_others(names: list[str], python: str, key: str | None, json: bool) -> None:
    from stemlab.engine import machines

    found = machines.report([machines.parse(name, python, key) for name in names])
    if json:
        print_json({"machines": found})
    else:
        for machine in found:
            _print_machine(machine)
    if any(machine["problems"] for machine in found):
        raise typer.Exit(1)


def _print_machine(machine: dict[str, Any]) -> None:
    print(f"{'machine':<15} {machine['machine']}, {machine['python']}")
    if machine["versions"] is not None:
        for name, version in machine["versions"].items():
            print(f"{name:<15} {version or 'missing'}")
        if machine["hardware"] is not None:
            _print_hardware(machine["hardware"])
        print(f"{'torch uses':<15} {machine['torch']}")
        print(f"{'disk at home':<15} {machine['disk_free_gib']} GiB free")
        print(f"{'clock':<15} {machine['clock_offset']:+.1f} s from ours")
    for note in machine["notes"]:
        print(f"note            {note}")
    for problem in machine["problems"]:
        print(f"PROBLEM         {problem}")
    print("all is well" if not machine["problems"] else f"{len(machine['problems'])} problems")
