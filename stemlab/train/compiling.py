"""torch.compile, where this machine can."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from ..errors import StemlabError

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F, device: torch.device) -> F:
    """Return a function that torch compiles when it is first called; StemlabError where the CPU has no compiler."""
    named = os.environ.get("CXX")
    if device.type == "cpu" and not any(map(shutil.which, [named] if named else ["g++", "clang++"])):
        raise StemlabError(
            f"train.compile needs a C++ compiler on the CPU, and there is none: "
            f"{f'CXX is {named}' if named else 'neither g++ nor clang++'}"
        )
    return torch.compile(function)  # type: ignore[return-value]
