"""The stems of timm and torchvision themselves: what the stems of the zoo are compared with.

A whole model is made on the meta device, where it costs no memory; its stem alone gets weights.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
import torchvision
from torch import nn


@dataclass(frozen=True)
class Original:
    """The stem of a published implementation: a model's name and the way to its stem.

    `image_size` is what to compare at where the published size would take long; the stem is the same function there.
    """

    library: str
    model: str
    stem: Callable[[nn.Module], nn.Module]
    image_size: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.library} {self.model}"

    def build(self) -> nn.Module:
        """Return the stem with random weights and statistics, in double precision."""
        whole = _on_meta(self.library, self.model, tuple(self.options.items()))
        stem = copy.deepcopy(self.stem(whole)).to_empty(device="cpu").double()
        randomise(stem)
        return stem


@functools.cache
def _on_meta(library: str, model: str, options: tuple[tuple[str, Any], ...]) -> nn.Module:
    with torch.device("meta"):
        if library == "timm":
            return timm.create_model(model, pretrained=False, **dict(options))
        return torchvision.models.get_model(model, weights=None, **dict(options))


@torch.no_grad()
def randomise(module: nn.Module) -> None:
    """Give all weights, scales and statistics random values, of a size that keeps the map's."""
    for weight in module.parameters():
        fan_in = weight[0].numel() if weight.ndim > 1 else 1
        weight.normal_(std=fan_in**-0.5)
    for name, buffer in module.named_buffers():
        match name.rpartition(".")[2]:
            case "running_mean":
                buffer.normal_()
            case "running_var":
                buffer.uniform_(0.5, 2)
            case "num_batches_tracked":
                buffer.zero_()
            case _:
                raise AssertionError(f"{name} holds what no rule fills")


def weighted(module: nn.Module, x: torch.Tensor) -> list[nn.Module]:
    """Return the modules that hold weights themselves, in the order in which x meets them."""
    met: list[nn.Module] = []
    holders = [m for m in module.modules() if next(m.parameters(recurse=False), None) is not None]
    hooks = [m.register_forward_pre_hook(lambda m, _: met.append(m)) for m in holders]
    try:
        module(x)
    finally:
        for hook in hooks:
            hook.remove()
    return met


@torch.no_grad()
def copy_weights(original: nn.Module, ours: nn.Module, x: torch.Tensor) -> list[tuple[nn.Module, nn.Module]]:
    """Copy weights and statistics to a stem with the same layers; return the pairs, met in the same order.

    Shapes may differ in axes of length one: a 1x1 convolution and a linear layer are the same.
    """
    sources, targets = weighted(original.eval(), x), weighted(ours.eval(), x)
    kinds = [[type(m).__name__ for m in modules] for modules in (sources, targets)]
    assert len(sources) == len(targets), f"{kinds[0]} are not {kinds[1]}"
    for source, target in zip(sources, targets, strict=True):
        theirs, own = (m.state_dict() for m in (source, target))
        assert theirs.keys() == own.keys(), f"{source} holds {list(theirs)}, {target} holds {list(own)}"
        for name, value in theirs.items():
            assert _squeezed(value) == _squeezed(own[name]), f"{name} of {source} does not fit {target}"
            own[name].copy_(value.reshape(own[name].shape))
    return list(zip(sources, targets, strict=True))


def _squeezed(value: torch.Tensor) -> list[int]:
    return [length for length in value.shape if length != 1]


def stem_of(model: nn.Module) -> nn.Module:
    return model.stem


def patch_embed_of(model: nn.Module) -> nn.Module:
    return model.patch_embed


def sequence(*names: str) -> Callable[[nn.Module], nn.Module]:
    """Return the way to modules that the model runs in a row."""
    return lambda model: nn.Sequential(*(model.get_submodule(name) for name in names))


def _patch_embeds(**models: str) -> dict[str, Original]:
    return {name: Original("timm", model, patch_embed_of) for name, model in models.items()}


def _stems(**models: str) -> dict[str, Original]:
    return {name: Original("timm", model, stem_of, SMALL) for name, model in models.items()}


def _crossvit(model: str, branch: int) -> Original:
    return Original("timm", model, sequence(f"patch_embed.{branch}.proj"))


SMALL = 64
HYBRID_EMBED = sequence("patch_embed.backbone", "patch_embed.proj")
RESNET_STEM = sequence("conv1", "bn1", "act1", "maxpool")

ZOO = {
    **_patch_embeds(
        patchify_vit_b32="vit_base_patch32_224",
        patchify_vit_ti16="vit_tiny_patch16_224",
        patchify_vit_s16_deit_s="vit_small_patch16_224",
        patchify_vit_b16="vit_base_patch16_224",
        patchify_vit_s8="vit_small_patch8_224",
        patchify_clip_b16="vit_base_patch16_clip_224",
        patchify_siglip_b16="vit_base_patch16_siglip_224",
        patchify_siglip_so400m14="vit_so400m_patch14_siglip_224",
        patchify_beit_b16="beit_base_patch16_224",
        patchify_eva_g14="eva_giant_patch14_224",
        patchify4_swin_t="swin_tiny_patch4_window7_224",
        patchify4_swin_b="swin_base_patch4_window7_224",
        patchify4_fasternet_t0="fasternet_t0",
        patchify16_samvit_b="samvit_base_patch16",
        pvtv2_b0="pvt_v2_b0",
        pvtv2_b1_b5="pvt_v2_b1",
        pit_xs="pit_xs_224",
        pit_s="pit_s_224",
        nest_tiny="nest_tiny",
        nest_base="nest_base",
        hiera_t_b="hiera_tiny_224",
        mvitv2_t_b="mvitv2_tiny",
    ),
    **{
        name: Original("timm", model, patch_embed_of, SMALL)
        for name, model in {
            "volo_d1": "volo_d1_224",
            "volo_d2": "volo_d2_224",
            "xcit_nano12_p16": "xcit_nano_12_p16_224",
            "xcit_tiny12_p16": "xcit_tiny_12_p16_224",
            "xcit_small12_p16": "xcit_small_12_p16_224",
            "xcit_small12_p8": "xcit_small_12_p8_224",
        }.items()
    },
    "vitamin_s_full_embed": Original("timm", "vitamin_small_224", patch_embed_of, 32),
    **_stems(
        patchify4_convnext_t="convnext_tiny",
        patchify4_convnext_b="convnext_base",
        patchify4_focalnet_t="focalnet_tiny_srf",
        levit_128="levit_128",
        levit_384="levit_384",
        coatnet_0_paper_timm="coatnet_0_224",
        mobilevit_all="mobilevit_s",
        efficientformer_l1="efficientformer_l1",
        efficientformer_l3="efficientformer_l3",
        poolformer_s12="poolformer_s12",
        convmixer_768_32="convmixer_768_32",
        convmixer_1536_20="convmixer_1536_20",
        mobileone_s0_train="mobileone_s0",
        repvit_m1="repvit_m1",
        nextvit_s="nextvit_small",
        hgnet_t="hgnet_tiny",
    ),
    "maxvit_t": Original("timm", "maxvit_tiny_tf_224", stem_of, SMALL),
    "patchify_dinov2_s14": Original("timm", "vit_small_patch14_dinov2", patch_embed_of, options={"img_size": 224}),
    "patchify_dinov2_b14": Original("timm", "vit_base_patch14_dinov2", patch_embed_of, options={"img_size": 224}),
    "patchify4_twins_s": Original("timm", "twins_pcpvt_small", sequence("patch_embeds.0")),
    "visformer_small": Original("timm", "visformer_small", sequence("stem", "patch_embed1")),
    "resnet_7x7_maxpool": Original("timm", "resnet18", RESNET_STEM, SMALL),
    "resnet_c_d_deep": Original("timm", "resnet50d", RESNET_STEM, SMALL),
    "efficientvit_mit_b0": Original("timm", "efficientvit_b0", stem_of, SMALL),
    "efficientvit_mit_b1": Original("timm", "efficientvit_b1", stem_of, SMALL),
    "vitamin_s_stem": Original("timm", "vitamin_small_224", sequence("patch_embed.backbone.stem"), SMALL),
    "crossvit_9_branch_s12": _crossvit("crossvit_9_240", 0),
    "crossvit_9_branch_l16": _crossvit("crossvit_9_240", 1),
    "crossvit_tiny_branch_s12": _crossvit("crossvit_tiny_240", 0),
    "crossvit_tiny_branch_l16": _crossvit("crossvit_tiny_240", 1),
    "crossvit_small_branch_s12": _crossvit("crossvit_small_240", 0),
    "crossvit_base_branch_s12": _crossvit("crossvit_base_240", 0),
    "crossvit_base_branch_l16": _crossvit("crossvit_base_240", 1),
    "crossvit_9_dagger_branch_l16": _crossvit("crossvit_9_dagger_240", 1),
    "fastvit_t8_train": Original("timm", "fastvit_t8", stem_of, 32),
    "fastvit_t12_sa36_train": Original("timm", "fastvit_t12", stem_of, 32),
    "vit_hybrid_r_s16_p8_ti": Original("timm", "vit_tiny_r_s16_p8_224", HYBRID_EMBED, SMALL),
    "vit_hybrid_r50_s16": Original("timm", "vit_base_r50_s16_224", HYBRID_EMBED, SMALL),
}
"""The original of each entry of the zoo that timm or torchvision ships."""
