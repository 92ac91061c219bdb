"""What a machine has. Its text is sent to an interpreter there that may lack stemlab: standard library alone."""

import hashlib
import importlib.util
import json
import platform
import shutil
import time
from importlib import metadata
from pathlib import Path
from typing import Any

MARK = "stemlab survey "
"""What the line begins with that holds the result; a shell's greetings may stand before it."""


def source() -> str | None:
    """Return a digest of the installed stemlab's source, which tells apart what a version number does not."""
    spec = importlib.util.find_spec("stemlab")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    text = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        text.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return text.hexdigest()


def main(parameters: str) -> None:
    """Print the survey; the parameters (JSON) are the packages to look for and whether to import torch."""
    given = json.loads(parameters)
    found: dict[str, Any] = {"clock": time.time(), "versions": {"python": platform.python_version()}}
    for name in given["packages"]:
        try:
            found["versions"][name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found["versions"][name] = None
    found["source"] = source()
    found["disk_free_gib"] = round(shutil.disk_usage(Path.home()).free / 2**30, 1)
    try:
        from stemlab.engine import manifest

        found["hardware"] = manifest.hardware()
    except Exception as error:
        found["hardware"] = None
        found["broken"] = f"{type(error).__name__}: {error}"
    if given["torch"]:
        try:
            import torch

            count = torch.cuda.device_count()
            found["torch"] = f"cuda, {count} devices" if count else "cpu"
        except Exception as error:
            found["torch"] = f"nothing ({error})"
    print(MARK + json.dumps(found), flush=True)
