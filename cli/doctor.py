"""`stemlab doctor`."""

from __future__ import annotations

import typer

from .output import Json, print_json

NAME = "doctor"


def run(
    json: Json = False,
) -> None:
    """Check this machine: versions, GPUs, NNI's tuners, disk; what is missing and how to get it."""
    from stemlab.engine.checkup import checkup

    found = checkup()
    if json:
        print_json(found)
    else:
        for name, version in found["versions"].items():
            print(f"{name:<15} {version or 'missing'}")
        hardware = found["hardware"]
        print(f"{'processor':<15} {hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gib']} GiB")
        gpus = ", ".join(f"{gpu['index']}: {gpu['name']} ({gpu['memory_mib']} MiB)" for gpu in hardware["gpus"])
        print(f"{'GPUs':<15} {gpus or 'none found; trials run on the CPU'}")
        print(f"{'torch uses':<15} {found['torch']}")
        print(f"{'disk here':<15} {found['disk_free_gib']} GiB free")
        for name, result in found["tuners"].items():
            print(f"{'tuner ' + name:<15} {result}")
        for problem in found["problems"]:
            print(f"PROBLEM         {problem}")
        print("all is well" if not found["problems"] else f"{len(found['problems'])} problems")
    if found["problems"]:
        raise typer.Exit(1)
