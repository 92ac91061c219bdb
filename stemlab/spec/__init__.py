"""What things are: the specs. Pydantic only; nothing here imports torch."""

from .base import Spec
from .body import BodySpec, RopeSpec
from .layers import ActLayer, ConvLayer, Counts, NormLayer, PatchifyLayer, PoolLayer, Shape
from .model import MatchSpec, ModelSpec
from .stem import StemSpec, Step
from .study import EngineSpec, SearchSettings, SearchSpec, TrialSpec
from .training import DataSpec, TrainSpec

__all__ = [
    "ActLayer",
    "BodySpec",
    "ConvLayer",
    "Counts",
    "DataSpec",
    "EngineSpec",
    "MatchSpec",
    "ModelSpec",
    "NormLayer",
    "PatchifyLayer",
    "PoolLayer",
    "RopeSpec",
    "SearchSettings",
    "SearchSpec",
    "Shape",
    "Spec",
    "StemSpec",
    "Step",
    "TrainSpec",
    "TrialSpec",
]
