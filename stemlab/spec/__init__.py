"""What things are: the specs. Pydantic only; nothing here imports torch."""

from .base import Spec
from .body import BodySpec, RopeSpec
from .layers import (
    ActLayer,
    ConvLayer,
    Counts,
    LayerSpec,
    NormLayer,
    PadLayer,
    ParallelLayer,
    PatchifyLayer,
    PoolLayer,
    Shape,
    ShapeError,
    SpaceToDepthLayer,
    Step,
    Trace,
    register_layer,
)
from .model import MatchSpec, ModelSpec
from .probes import CkaSpec, ProbeSpec
from .stem import StemSpec
from .study import AblationSettings, AblationSpec, EngineSpec, SearchSettings, SearchSpec, StudySpec, TrialSpec
from .training import DataSpec, TrainSpec

__all__ = [
    "AblationSettings",
    "AblationSpec",
    "ActLayer",
    "BodySpec",
    "CkaSpec",
    "ConvLayer",
    "Counts",
    "DataSpec",
    "EngineSpec",
    "LayerSpec",
    "MatchSpec",
    "ModelSpec",
    "NormLayer",
    "PadLayer",
    "ParallelLayer",
    "PatchifyLayer",
    "PoolLayer",
    "ProbeSpec",
    "RopeSpec",
    "SearchSettings",
    "SearchSpec",
    "Shape",
    "ShapeError",
    "SpaceToDepthLayer",
    "Spec",
    "StemSpec",
    "Step",
    "StudySpec",
    "Trace",
    "TrainSpec",
    "TrialSpec",
    "register_layer",
]
