"""timm knows our models by name as soon as both stemlab and timm are imported, in whichever order.

timm has no entry points for the models of others: they are registered by importing them. But `import stemlab` must
not import timm (and torch with it), and who imports stemlab first would wait in vain for its models to show up in
`timm.create_model`. So, where timm is not there yet, a finder waits for its import and registers behind it.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PREFIX = "stemlab"


def install() -> None:
    """Register our models with timm: now where it is imported, or else behind its import."""
    if "timm" in sys.modules:
        register()
    elif not any(isinstance(finder, _TimmFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TimmFinder())


def register() -> None:
    """Register `stemlab` (any model, by its spec) and `stemlab_<name>` for each model of the zoo; once."""
    try:
        from timm.models import is_model, register_model

        from . import zoo

        wanted = [PREFIX, *(f"{PREFIX}_{name}" for name in zoo.models())]
        for name in wanted:
            if not is_model(name):
                register_model(_entry(name))
    except Exception as error:  # whatever it is, it must not break the `import timm` of somebody else
        warnings.warn(f"timm does not know stemlab's models: {type(error).__name__}: {error}", stacklevel=2)


def _entry(name: str) -> Callable[..., Any]:
    """Return what timm calls for a name. Folders that timm saved bring the `spec` that they were made with."""

    def make(pretrained: bool = False, spec: Any = None, **options: Any) -> Any:
        from . import zoo
        from .builders.create import create

        return create(
            name, spec or (zoo.get(name[len(PREFIX) + 1 :]).model if name != PREFIX else None), pretrained, **options
        )

    make.__name__ = make.__qualname__ = name
    return make


class _TimmFinder:
    """Stands before the finders of sys.meta_path until timm has been imported; finds nothing by itself."""

    def __init__(self) -> None:
        self.asking = threading.local()

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return timm's own spec, with a loader that registers our models once timm has run."""
        if name != "timm" or getattr(self.asking, "others", False):  # another finder that does as we do asks us
            return None
        self.asking.others = True
        try:
            others = (getattr(finder, "find_spec", None) for finder in sys.meta_path if finder is not self)
            spec = next((found for find in others if find and (found := find(name, path, target))), None)
        finally:
            self.asking.others = False
        loader: Any = spec.loader if spec else None
        if not hasattr(loader, "exec_module"):
            return spec
        # On the instance, not by a loader of ours: inspect and importlib.resources ask the loader for more than this.
        run = loader.exec_module

        def run_and_register(module: ModuleType) -> None:
            vars(loader).pop("exec_module", None)
            run(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            register()

        loader.exec_module = run_and_register
        return spec
