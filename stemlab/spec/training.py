"""TrainSpec: how a model is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ..errors import nearest, short
from .augment import AugmentSpec
from .base import Flag, Number, PositiveInt, Spec, relation_error, spec_error
from .presets import expanded

Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
BelowOne = Annotated[Number, Field(ge=0, lt=1)]

OPTIMIZERS = (
    "sgd", "momentum", "sgdp", "sgdw", "nesterovw", "adam", "adamw", "adamp", "adamax", "adan", "adanw", "adopt",
    "adoptw", "adabelief", "adadelta", "adafactor", "adagrad", "lamb", "lambc", "lambw", "laprop",
    "larc", "lars", "lion", "madgrad", "madgradw", "mars", "muon", "nadam", "nadamw", "nlarc", "nlars", "novograd",
    "radam", "radamw", "rmsprop", "rmsproptf",
)  # fmt: skip
"""timm's optimizers that need nothing but torch and a gradient, by timm's names."""


class TrainSpec(Spec):
    """The recipe of one run. Optimizers, schedules, augmentation are timm's; epochs are passes over the training part.

    A recipe may begin with a `preset`, `vit_c_imagenet` or `deit`, whose fields hold unless given.

    `optimizer`: `sgd` has Nesterov's momentum, `momentum` plain one. `schedule`: `step` multiplies the rate by
    `decay_rate` (0.1) every `decay_epochs`, `multistep` at each of `milestones` (in epochs); `cosine`, `poly` (a square
    root) and `tanh` end at `min_lr`. `layer_decay` multiplies the rate of a block by so much for each block above it.
    `stem_lr` is the stem's rate as a multiple of what it had been, `stem_weight_decay` its own decay. Norms, biases and
    embeddings never decay. `accumulate` updates behind so many batches. `ema` is the decay, per update, of a running
    mean of the weights, which is then what is judged; it begins behind the warm-up. `drop_path` is the greatest rate
    of stochastic depth. `token_labels` is the weight of a loss on every patch token, by the model's own classifier,
    whose labels are the image's (in the manner of arXiv 2104.10858). `augment` varies the images. `checkpointing`
    computes a block's activations again in the backward pass, instead of keeping them.
    """

    epochs: PositiveInt = 8
    batch_size: PositiveInt = 64
    optimizer: str = "adamw"
    lr: Positive = 1e-3
    weight_decay: NotNegative = 0.05
    momentum: BelowOne = 0.9
    schedule: Literal["cosine", "constant", "step", "multistep", "poly", "tanh"] = "cosine"
    warmup_epochs: NotNegative = 1.0
    min_lr: NotNegative = 0.0
    label_smoothing: BelowOne = 0.0
    clip_grad: Positive | None = None
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    decay_rate: Annotated[Number, Field(gt=0, lt=1)] | None = None
    decay_epochs: Positive | None = None
    milestones: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = None
    layer_decay: Annotated[Number, Field(gt=0, lt=1)] | None = None
    stem_lr: Positive | None = None
    stem_weight_decay: NotNegative | None = None
    accumulate: PositiveInt | None = None
    ema: Annotated[Number, Field(gt=0, lt=1)] | None = None
    drop_path: Annotated[Number, Field(gt=0, lt=1)] | None = None
    token_labels: Annotated[Number, Field(gt=0, le=4)] | None = None
    augment: AugmentSpec | None = None
    channels_last: Flag | None = None
    compile: Flag | None = None
    checkpointing: Flag | None = None

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, data: Any) -> Any:
        return expanded(data)

    @model_validator(mode="after")
    def _agrees(self) -> TrainSpec:
        if self.optimizer not in OPTIMIZERS:
            raise spec_error(
                f"unknown optimizer {short(self.optimizer)}; expected one of timm's, such as adamw, sgd, lamb, lion"
                f"{nearest(self.optimizer, OPTIMIZERS)}",
                at=("optimizer",),
            )
        if self.warmup_epochs >= self.epochs:
            raise relation_error(
                f"warmup_epochs (={self.warmup_epochs:g}) must be less than epochs (={self.epochs})",
                at=("warmup_epochs",),
            )
        if self.min_lr > self.lr:
            raise relation_error(f"min_lr (={self.min_lr:g}) must not exceed lr (={self.lr:g})", at=("min_lr",))
        for name, schedules in _OF_SCHEDULES.items():
            if getattr(self, name) is not None and self.schedule not in schedules:
                raise relation_error(f"is for the schedule {' or '.join(schedules)}, not {self.schedule}", at=(name,))
        if self.schedule == "multistep" and self.milestones is None:
            raise relation_error("the schedule multistep needs its milestones", at=("schedule",))
        if self.schedule == "step" and self.decay_epochs is None:
            raise relation_error("the schedule step needs decay_epochs", at=("schedule",))
        if self.min_lr and self.schedule in ("step", "multistep"):
            raise relation_error(f"the schedule {self.schedule} ends at no min_lr (={self.min_lr:g})", at=("min_lr",))
        if self.optimizer in _NESTEROV and not self.momentum:
            raise relation_error(
                f"the optimizer {self.optimizer} is Nesterov's, and needs a momentum above 0", at=("momentum",)
            )
        return self


_NESTEROV = ("sgd", "sgdw", "nesterovw", "nlarc", "nlars")
_OF_SCHEDULES = {"decay_rate": ("step", "multistep"), "decay_epochs": ("step",), "milestones": ("multistep",)}
