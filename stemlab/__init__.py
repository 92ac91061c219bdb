"""stemlab: which stem should my vision transformer have? Search and ablation of stems at matched cost."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import timm_models

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import zoo
    from .api import attach, build, build_stem, cost, diagram, load, match, measure
    from .builders.fuse import fuse
    from .costing import Cost
    from .drawing import Diagram
    from .errors import EngineError, InfeasibleError, SpecError, StemlabError, StudyError
    from .matching import MatchResult
    from .running import ablate, search
    from .single import train_model
    from .spec import (
        AblationSpec,
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
    from .study import Study

# Where each public name lives. They are imported on first use: torch takes seconds, and most of the library
# does without it.
_HOMES = {
    **dict.fromkeys(("attach", "build", "build_stem", "cost", "diagram", "load", "match", "measure"), ".api"),
    **dict.fromkeys(("ablate", "search"), ".running"),
    "train_model": ".single",
    **dict.fromkeys(("EngineError", "InfeasibleError", "SpecError", "StemlabError", "StudyError"), ".errors"),
    **dict.fromkeys(("AblationSpec", "BodySpec", "DataSpec", "MatchSpec", "ModelSpec"), ".spec"),
    **dict.fromkeys(("SearchSpec", "StemSpec", "TrainSpec"), ".spec"),
    **dict.fromkeys(("LayerSpec", "register_layer"), ".spec"),
    "Cost": ".costing",
    "Diagram": ".drawing",
    "MatchResult": ".matching",
    "Study": ".study",
    "fuse": ".builders.fuse",
}

__all__ = [
    "AblationSpec",
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
    "ablate",
    "attach",
    "build",
    "build_stem",
    "cost",
    "diagram",
    "fuse",
    "load",
    "match",
    "measure",
    "register_layer",
    "search",
    "train_model",
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
