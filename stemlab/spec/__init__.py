"""What things are: the specs. Pydantic only; nothing here imports torch."""

from .augment import AugmentSpec
from .base import Spec
from .body import BodySpec, RopeSpec
from .data import Contents, DataSpec
from .engine import EngineSpec, MachineSpec
from .latency import LatencySpec
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
from .search import DrawsSpec, FidelitySpec, Objective, SearchSettings
from .stem import StemSpec
from .study import AblationSettings, AblationSpec, SearchSpec, StudySpec
from .training import TrainSpec
from .trial import Floor, Order, TrialSpec

__all__ = [
    "AblationSettings",
    "AblationSpec",
    "ActLayer",
    "AugmentSpec",
    "BodySpec",
    "CkaSpec",
    "Contents",
    "ConvLayer",
    "Counts",
    "DataSpec",
    "DrawsSpec",
    "EngineSpec",
    "FidelitySpec",
    "Floor",
    "LatencySpec",
    "LayerSpec",
    "MachineSpec",
    "MatchSpec",
    "ModelSpec",
    "NormLayer",
    "Objective",
    "Order",
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
