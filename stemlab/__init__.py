"""stemlab: which stem should my vision transformer have? Search and ablation of stems at matched cost."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import timm_models

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import zoo
    from .api import Study, attach, build, build_stem, cost, diagram, load, match, search
    from .builders.fuse import fuse
    from .costing import Cost
    from .drawing import Diagram
    from .errors import EngineError, InfeasibleError, SpecError, StemlabError, StudyError
    from .matching import MatchResult
    from .spec import (
        BodySpec,
        DataSpec,
        LayerSpec,
        MatchSpec,
        ModelSpec,
        SearchSpec,
        StemSpec,
        TrainSpec,
        register_layer,
    )

# Where each public name lives. They are imported on first use: torch takes seconds, and most of the library
# does without it.
_HOMES = {
    **dict.fromkeys(("Study", "attach", "build", "build_stem", "cost", "diagram", "load", "match", "search"), ".api"),
    **dict.fromkeys(("EngineError", "InfeasibleError", "SpecError", "StemlabError", "StudyError"), ".errors"),
    **dict.fromkeys(("BodySpec", "DataSpec", "MatchSpec", "ModelSpec", "SearchSpec", "StemSpec", "TrainSpec"), ".spec"),
    **dict.fromkeys(("LayerSpec", "register_layer"), ".spec"),
    "Cost": ".costing",
    "Diagram": ".drawing",
    "MatchResult": ".matching",
    "fuse": ".builders.fuse",
}

__all__ = [
    "BodySpec",
    "Cost",
    "DataSpec",
    "Diagram",
    "EngineError",
    "InfeasibleError",
    "LayerSpec",
    "MatchResult",
    "MatchSpec",
    "ModelSpec",
    "SearchSpec",
    "SpecError",
    "StemSpec",
    "StemlabError",
    "Study",
    "StudyError",
    "TrainSpec",
    "attach",
    "build",
    "build_stem",
    "cost",
    "diagram",
    "fuse",
    "load",
    "match",
    "register_layer",
    "search",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name == "zoo":
        return import_module(".zoo", __name__)
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


timm_models.install()
