"""The exceptions that stemlab raises on purpose.

Every message names the thing, its value, what was expected and how to mend it. The command line turns them
into one line on stderr and the exit code that each class carries.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class StemlabError(Exception):
    """Base of all stemlab errors. `exit_code` is what the command line returns for it."""

    exit_code = 1


class SpecError(StemlabError):
    """Bad input: a file, a value or a combination of values that cannot be right."""

    exit_code = 2


class InfeasibleError(SpecError):
    """A well-formed request that nothing satisfies, such as a match outside its tolerance.

    `path` says where in the document the reason stands, as far as that is known.
    """

    def __init__(self, message: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.path = path


class StudyError(SpecError):
    """A study folder that cannot be used: another study's, in use, or damaged."""


class EngineError(StemlabError):
    """A study could not run on this machine: no such GPU, no NNI tuner, workers that do not start."""


def nearest(name: object, valid: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the closest valid name, or an empty string."""
    close = difflib.get_close_matches(str(name), list(valid), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def short(value: object, most: int = 60) -> str:
    """Return a value as a message can hold it, cut off where it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def one_of(valid: Iterable[str]) -> str:
    """Return "one of a, b, c"."""
    return "one of " + ", ".join(valid)
