"""Stems and first blocks of timm and torchvision that are not in the zoo, and how they read in our words.

They show that the vocabulary is a general one. A name stands for the stem of the zoo that a second implementation, or a
second form, has too.
"""

from __future__ import annotations

from typing import Any

from originals import RESNET_STEM, SMALL, Original, patch_embed_of, sequence, stem_of
from torchvision.models.vision_transformer import ConvStemConfig

Layer = dict[str, Any]
Written = str | dict[str, list[Layer]]
EPS_1E3 = {"kind": "batch", "eps": 1e-3}
SLOW_BN = {**EPS_1E3, "momentum": 0.01}
LN_EPS_1E5 = {"kind": "layer", "eps": 1e-5}


def conv(channels: int, kernel: Any = 3, stride: int = 1, norm: Any = "batch", act: Any = None, **more: Any) -> Layer:
    return {"op": "conv", "channels": channels, "kernel": kernel, "stride": stride, "norm": norm, "act": act, **more}


def plain(channels: int, kernel: Any = 1, stride: int = 1, **more: Any) -> Layer:
    return conv(channels, kernel, stride, norm=None, **more)


def norm(kind: str, **more: Any) -> Layer:
    return {"op": "norm", "kind": kind, **more}


def act(kind: str, **more: Any) -> Layer:
    return {"op": "act", "kind": kind, **more}


def pool(kind: str, kernel: int = 3, stride: int = 2, padding: int = 1, **more: Any) -> Layer:
    return {"op": "pool", "kind": kind, "kernel": kernel, "stride": stride, "padding": padding, **more}


def total(*branches: list[Layer]) -> Layer:
    return {"op": "parallel", "merge": "sum", "branches": list(branches)}


def joined(*branches: list[Layer], **more: Any) -> Layer:
    return {"op": "parallel", "merge": "concat", "branches": list(branches), **more}


def product(*branches: list[Layer]) -> Layer:
    return {"op": "parallel", "merge": "mul", "branches": list(branches)}


def residual(*layers: Layer) -> Layer:
    return total(list(layers), [])


def squeeze_excite(hidden: int, channels: int, inner: str, gate: str, bias: bool = True) -> Layer:
    """Return the gate of arXiv 1709.01507."""
    squeezed = [{"op": "pool", "kind": "global"}, plain(hidden, bias=bias, act=inner), plain(channels, bias=bias)]
    return product([], [*squeezed, act(gate)])


def rep_vgg(channels: int, stride: int, identity: bool) -> list[Layer]:
    """Return the block of arXiv 2101.03697 as it trains."""
    convs = [[conv(channels, 1, stride)], [conv(channels, 3, stride)]]
    return [total([norm("batch")], *convs) if identity else total(*convs), act("relu")]


def ghost(channels: int, inner: str | None) -> list[Layer]:
    """Return the module of arXiv 1911.11907: half of the channels are made of the other half, cheaply."""
    return [conv(channels // 2, 1, act=inner), joined([], [conv(channels // 2, groups="depthwise", act=inner)])]


def all_joined(first: Layer, *others: Layer) -> Layer:
    """Return convolutions in a row whose outputs, and the input, are concatenated (arXiv 1904.09730)."""
    return joined([], [first, all_joined(*others)] if others else [first])


def dense(growth: int) -> Layer:
    """Return the layer of arXiv 1608.06993."""
    before = [norm("batch"), act("relu"), conv(4 * growth, 1, act="relu")]
    return joined([], [*before, plain(growth, 3)])


def inception_a(pooled: int, kind: str, widths: tuple[int, ...], large: int) -> Layer:
    """Return the module of arXiv 1409.4842 (3x3 for the large kernel in torchvision) or 1512.00567."""
    one, two, three, four, five = widths
    unit = {"norm": EPS_1E3, "act": "relu"}
    deep = [conv(five, 3, **unit)] if large == 5 else []
    return joined(
        [conv(one, 1, **unit)],
        [conv(two, 1, **unit), conv(three, large, **unit)],
        [conv(four, 1, **unit), conv(five, 3, **unit), *deep],
        [pool(kind, 3, 1, **({"ceil": True} if kind == "max" else {})), conv(pooled, 1, **unit)],
    )


def fire(squeezed: int, expanded: int) -> list[Layer]:
    """Return the module of arXiv 1602.07360."""
    kernels = [[plain(expanded, kernel, bias=True, act="relu")] for kernel in (1, 3)]
    return [plain(squeezed, bias=True, act="relu"), joined(*kernels)]


def scaled_standard(channels: int, kernel: int, stride: int, gamma: float = 1.0, padding: Any = "same") -> Layer:
    standardize = {"eps": 1e-5, "gain": True, "gamma": gamma}
    return plain(channels, kernel, stride, bias=True, padding=padding, standardize=standardize)


def timm(model: str, *names: str) -> Original:
    return Original("timm", model, sequence(*names) if names else stem_of, SMALL)


def vision(model: str, *names: str, size: int = SMALL, **options: Any) -> Original:
    return Original("torchvision", model, sequence(*names), size, options)


def _layers(*layers: Layer) -> Written:
    return {"layers": list(layers)}


def _conv_stem(channels: list[int], strides: list[int]) -> tuple[ConvStemConfig, ...]:
    return tuple(ConvStemConfig(c, 3, s) for c, s in zip(channels, strides, strict=True))


NF_GELU = 1.7015043497085571  # what timm's NF-Net multiplies a GELU with, arXiv 2101.08692
NF_RELU = 1.7139588594436646
TIERED = _layers(conv(24, 3, 2, act="relu"), conv(32, act="relu"), conv(64, act="relu"), pool("max"))

STEMS: dict[str, tuple[Original, Written]] = {
    # A second form or implementation of a stem in the zoo.
    "fastvit_t8 fused": (Original("timm", "fastvit_t8", stem_of, 32, {"inference_mode": True}), "fastvit_t8_reparam"),
    "fastvit_t12 fused": (
        Original("timm", "fastvit_t12", stem_of, 32, {"inference_mode": True}),
        "fastvit_t12_sa36_reparam",
    ),
    "torchvision vit_b_16": (vision("vit_b_16", "conv_proj", size=224), "patchify_vit_b16"),
    "torchvision vit_b_16 with the stem of vit_c_18gf": (
        vision(
            "vit_b_16",
            "conv_proj",
            size=SMALL,
            conv_stem_configs=_conv_stem([64, 128, 128, 256, 256, 512], [2, 2, 1, 2, 1, 2]),
        ),
        "vit_c_18gf",
    ),
    "torchvision vit_l_16 with the stem of vit_c_36gf": (
        vision(
            "vit_l_16",
            "conv_proj",
            size=SMALL,
            conv_stem_configs=_conv_stem([64, 128, 128, 256, 256, 512], [2, 2, 1, 2, 1, 2]),
        ),
        "vit_c_36gf",
    ),
    "torchvision resnet18": (vision("resnet18", "conv1", "bn1", "relu", "maxpool"), "resnet_7x7_maxpool"),
    "torchvision swin_t": (vision("swin_t", "features.0"), "patchify4_swin_t"),
    "torchvision convnext_tiny": (vision("convnext_tiny", "features.0"), "patchify4_convnext_t"),
    # Stems.
    "torchvision maxvit_t": (
        vision("maxvit_t", "stem"),
        _layers(conv(64, 3, 2, norm=SLOW_BN, act="gelu"), plain(64, 3, bias=True)),
    ),
    "torchvision mobilenet_v3_small": (
        vision("mobilenet_v3_small", "features.0"),
        _layers(conv(16, 3, 2, norm=SLOW_BN, act="hardswish")),
    ),
    "caformer_s18": (
        timm("caformer_s18", "stem"),
        _layers(plain(64, 7, 4, padding=2, bias=True), norm("layer", affine="scale")),
    ),
    "tf_mobilenetv3": (
        timm("tf_mobilenetv3_large_100", "conv_stem", "bn1"),
        _layers(conv(16, 3, 2, norm=EPS_1E3, act="hardswish", padding="tf_same")),
    ),
    "dm_nfnet": (
        timm("dm_nfnet_f0"),
        _layers(
            scaled_standard(16, 3, 2, padding="tf_same"),
            act("gelu", gain=NF_GELU),
            scaled_standard(32, 3, 1),
            act("gelu", gain=NF_GELU),
            scaled_standard(64, 3, 1),
            act("gelu", gain=NF_GELU),
            scaled_standard(128, 3, 2, padding="tf_same"),
        ),
    ),
    "nf_resnet50": (timm("nf_resnet50"), _layers(scaled_standard(64, 7, 2, NF_RELU), pool("max"))),
    "tresnet": (
        timm("tresnet_m", "body.s2d", "body.conv1"),
        _layers({"op": "space_to_depth", "block": 4, "order": "h w c"}, conv(64, act="leaky_relu")),
    ),
    "bit": (
        timm("resnetv2_50x1_bit"),
        _layers(
            plain(64, 7, 2, standardize={"eps": 1e-8}),
            {"op": "pad", "padding": 1},
            pool("max", padding=0),
        ),
    ),
    "resnest": (
        timm("resnest14d", "conv1", "bn1", "act1", "maxpool"),
        "resnet_c_d_deep",
    ),
    "seresnet50t": (Original("timm", "seresnet50t", RESNET_STEM, SMALL), TIERED),
    "botnet": (timm("botnet26t_256"), TIERED),
    "cspresnet50": (timm("cspresnet50"), _layers(conv(64, 7, 2, act="leaky_relu"), pool("max"))),
    "regnety": (timm("regnety_002"), _layers(conv(32, 3, 2, act="relu"))),
    "hrnet": (
        timm("hrnet_w18_small", "conv1", "bn1", "act1", "conv2", "bn2", "act2"),
        _layers(conv(64, 3, 2, act="relu"), conv(64, 3, 2, act="relu")),
    ),
    "dla34": (
        timm("dla34", "base_layer", "level0", "level1"),
        _layers(conv(16, 7, act="relu"), conv(16, act="relu"), conv(32, 3, 2, act="relu")),
    ),
    "vgg11_bn": (
        timm("vgg11_bn", *(f"features.{i}" for i in range(4))),
        _layers(conv(64, bias=True, act="relu"), pool("max", 2, 2, 0)),
    ),
    "xception41": (
        timm("xception41"),
        _layers(conv(32, 3, 2, norm=EPS_1E3, act="relu"), conv(64, norm=EPS_1E3, act="relu")),
    ),
    "hgnetv2": (
        timm("hgnetv2_b4"),
        _layers(
            conv(32, 3, 2, act="relu"),
            {"op": "pad", "padding": [0, 1, 0, 1]},
            joined(
                [pool("max", 2, 1, 0, ceil=True)],
                [
                    conv(16, 2, padding=0, act="relu"),
                    conv(32, 2, padding=[0, 1, 0, 1], act="relu"),
                ],
            ),
            conv(32, 3, 2, act="relu"),
            conv(48, 1, act="relu"),
        ),
    ),
    "edgenext": (timm("edgenext_xx_small"), _layers(plain(24, 4, 4, padding=0, bias=True), norm("layer"))),
    "inception_next": (timm("inception_next_tiny"), _layers(conv(96, 4, 4, padding=0, bias=True))),
    "davit": (timm("davit_tiny"), _layers(conv(96, 7, 4, bias=True, norm=LN_EPS_1E5))),
    "convnext_atto_ols": (
        timm("convnext_atto_ols"),
        _layers(plain(24, 3, 2, bias=True), conv(40, 3, 2, bias=True, norm="layer")),
    ),
    "mambaout": (
        timm("mambaout_femto"),
        _layers(conv(24, 3, 2, bias=True, norm="layer", act="gelu"), conv(48, 3, 2, bias=True, norm="layer")),
    ),
    "gcvit": (
        timm("gcvit_xxtiny"),
        _layers(
            conv(64, 3, 2, bias=True, norm=LN_EPS_1E5),
            residual(
                plain(64, 3, groups="depthwise", act="gelu"),
                squeeze_excite(16, 64, "gelu", "sigmoid", bias=False),
                plain(64),
            ),
            conv(64, 3, 2, norm=LN_EPS_1E5),
        ),
    ),
    "tiny_vit": (
        Original("timm", "tiny_vit_5m_224", patch_embed_of, SMALL),
        _layers(conv(32, 3, 2, act="gelu"), conv(64, 3, 2)),
    ),
    "efficientvit_msra": (
        Original("timm", "efficientvit_m0", patch_embed_of, SMALL),
        _layers(*(conv(c, 3, 2, act="relu") for c in (8, 16, 32)), conv(64, 3, 2)),
    ),
    "swiftformer": (timm("swiftformer_xs"), _layers(*(conv(c, 3, 2, bias=True, act="relu") for c in (24, 48)))),
    "starnet": (timm("starnet_s1"), _layers(conv(32, 3, 2, bias=True, act="relu6"))),
    "mobilenetv5": (
        timm("mobilenetv5_300m", "conv_stem"),
        _layers(conv(64, 3, 2, bias=True, norm="rms", act="gelu_tanh")),
    ),
    "iformer": (
        timm("iformer_h"),
        _layers(conv(48, 5, 2, act="gelu"), conv(192, 5, 2, act="gelu"), conv(96, 1)),
    ),
    "cpubone": (
        timm("cpubone_b3"),
        _layers(conv(32, 3, 2, act="hardswish"), residual(conv(128, act="hardswish", groups=2), conv(32, 1))),
    ),
    # First blocks.
    "starnet with two blocks": (
        timm("starnet_s1", "stem", "stages.0"),
        _layers(
            conv(32, 3, 2, bias=True, act="relu6"),
            conv(24, 3, 2, bias=True),
            *[
                residual(
                    conv(24, 7, groups="depthwise", bias=True),
                    product([plain(96, bias=True, act="relu6")], [plain(96, bias=True)]),
                    conv(24, 1, bias=True),
                    plain(24, 7, groups="depthwise", bias=True),
                )
            ]
            * 2,
        ),
    ),
    "fasternet with a block": (
        timm("fasternet_t0", "patch_embed", "stages.0.blocks.0"),
        _layers(
            conv(40, 4, 4, padding=0),
            residual(joined([plain(10, 3)], [], split=[10, 30]), conv(80, 1, act="gelu"), plain(40)),
        ),
    ),
    "tf_efficientnet": (
        timm("tf_efficientnet_b0", "conv_stem", "bn1", "blocks.0"),
        _layers(
            conv(32, 3, 2, norm=EPS_1E3, act="silu", padding="tf_same"),
            conv(32, norm=EPS_1E3, act="silu", groups="depthwise"),
            squeeze_excite(8, 32, "silu", "sigmoid"),
            conv(16, 1, norm=EPS_1E3),
        ),
    ),
    "mobilenetv3": (
        timm("mobilenetv3_small_100", "conv_stem", "bn1", "blocks.0"),
        _layers(
            conv(16, 3, 2, act="hardswish"),
            conv(16, 3, 2, act="relu", groups="depthwise"),
            squeeze_excite(8, 16, "relu", "hardsigmoid"),
            conv(16, 1),
        ),
    ),
    "mobilenetv4": (
        timm("mobilenetv4_conv_small", "conv_stem", "bn1", "blocks.0"),
        _layers(conv(32, 3, 2, act="relu"), conv(32, 3, 2, act="relu"), conv(32, 1, act="relu")),
    ),
    "mixnet": (
        timm("mixnet_s", "conv_stem", "bn1", "blocks.0", "blocks.1.0"),
        _layers(
            conv(16, 3, 2, act="relu"),
            residual(conv(16, act="relu", groups="depthwise"), conv(16, 1)),
            joined([plain(48)], [plain(48)], split="equal"),
            norm("batch"),
            act("relu"),
            conv(96, 3, 2, act="relu", groups="depthwise"),
            joined([plain(12)], [plain(12)], split="equal"),
            norm("batch"),
        ),
    ),
    "regnety with a block": (
        timm("regnety_002", "stem", "s1.b1"),
        _layers(
            conv(32, 3, 2, act="relu"),
            total(
                [
                    conv(24, 1, act="relu"),
                    conv(24, 3, 2, act="relu", groups=3),
                    squeeze_excite(8, 24, "relu", "sigmoid"),
                    conv(24, 1),
                ],
                [conv(24, 1, 2)],
            ),
            act("relu"),
        ),
    ),
    "repvgg": (
        timm("repvgg_a0", "stem", "stages.0"),
        _layers(*rep_vgg(48, 2, False), *rep_vgg(48, 2, False), *rep_vgg(48, 1, True)),
    ),
    "ghostnet": (
        timm("ghostnet_100", "conv_stem", "bn1", "act1", "blocks.0"),
        _layers(conv(16, 3, 2, act="relu"), residual(*ghost(16, "relu"), *ghost(16, None))),
    ),
    "vovnet39a": (
        timm("vovnet39a", "stem", "stages.0"),
        _layers(
            conv(64, 3, 2, act="relu"),
            conv(64, act="relu"),
            conv(128, 3, 2, act="relu"),
            all_joined(*[conv(128, act="relu")] * 5),
            conv(256, 1, act="relu"),
        ),
    ),
    "densenet121": (
        timm("densenet121", *(f"features.{name}" for name in ("conv0", "norm0", "pool0", "denseblock1"))),
        _layers(conv(64, 7, 2, act="relu"), pool("max"), *[dense(32)] * 6),
    ),
    "convmixer with a block": (
        timm("convmixer_768_32", "stem", "blocks.0"),
        _layers(
            conv(768, 7, 7, padding=0, bias=True, act="relu", order="conv-act-norm"),
            residual(conv(768, 7, bias=True, groups="depthwise", act="relu", order="conv-act-norm")),
            conv(768, 1, bias=True, act="relu", order="conv-act-norm"),
        ),
    ),
    "inception_v3": (
        Original(
            "timm",
            "inception_v3",
            sequence(
                *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Pool1"),
                *("Conv2d_3b_1x1", "Conv2d_4a_3x3", "Pool2", "Mixed_5b"),
            ),
            SMALL,
        ),
        _layers(
            conv(32, 3, 2, norm=EPS_1E3, act="relu", padding=0),
            conv(32, norm=EPS_1E3, act="relu", padding=0),
            conv(64, norm=EPS_1E3, act="relu"),
            pool("max", padding=0),
            conv(80, 1, norm=EPS_1E3, act="relu"),
            conv(192, norm=EPS_1E3, act="relu", padding=0),
            pool("max", padding=0),
            inception_a(32, "avg", (64, 48, 64, 64, 96), large=5),
        ),
    ),
    "inception_v4": (
        timm("inception_v4", *(f"features.{i}" for i in range(5))),
        _layers(
            conv(32, 3, 2, norm=EPS_1E3, act="relu", padding=0),
            conv(32, norm=EPS_1E3, act="relu", padding=0),
            conv(64, norm=EPS_1E3, act="relu"),
            joined([pool("max", padding=0)], [conv(96, 3, 2, norm=EPS_1E3, act="relu", padding=0)]),
            joined(
                [conv(64, 1, norm=EPS_1E3, act="relu"), conv(96, norm=EPS_1E3, act="relu", padding=0)],
                [
                    conv(64, 1, norm=EPS_1E3, act="relu"),
                    conv(64, [1, 7], norm=EPS_1E3, act="relu"),
                    conv(64, [7, 1], norm=EPS_1E3, act="relu"),
                    conv(96, norm=EPS_1E3, act="relu", padding=0),
                ],
            ),
        ),
    ),
    "torchvision googlenet": (
        vision("googlenet", "conv1", "maxpool1", "conv2", "conv3", "maxpool2", "inception3a", init_weights=False),
        _layers(
            conv(64, 7, 2, norm=EPS_1E3, act="relu"),
            pool("max", padding=0, ceil=True),
            conv(64, 1, norm=EPS_1E3, act="relu"),
            conv(192, norm=EPS_1E3, act="relu"),
            pool("max", padding=0, ceil=True),
            inception_a(32, "max", (64, 96, 128, 16, 32), large=3),
        ),
    ),
    "torchvision squeezenet1_1": (
        vision("squeezenet1_1", *(f"features.{i}" for i in range(5))),
        _layers(
            plain(64, 3, 2, padding=0, bias=True, act="relu"),
            pool("max", padding=0, ceil=True),
            *fire(16, 64),
            *fire(16, 64),
        ),
    ),
    "torchvision efficientnet_b0": (
        vision("efficientnet_b0", "features.0", "features.1.0.block"),
        _layers(
            conv(32, 3, 2, act="silu"),
            conv(32, act="silu", groups="depthwise"),
            squeeze_excite(8, 32, "silu", "sigmoid"),
            conv(16, 1),
        ),
    ),
}
"""The name of a design -> its original, and the stem that is the same."""
