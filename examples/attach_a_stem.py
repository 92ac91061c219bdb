"""Build a stem, put it on one of timm's ViTs, and see what it costs.

    python examples/attach_a_stem.py
"""

import timm
import torch

import stemlab

# A ViT of timm's, with the weights you have (pretrained=True downloads timm's).
vit = timm.create_model("vit_tiny_patch16_224", num_classes=10)
images = torch.randn(2, 3, 224, 224)
print("patchify:", tuple(vit(images).shape))

# The conv stem of arXiv 2106.14881 in the width of this ViT: four 3x3 convolutions, then 1x1 to the width.
stem = {"channels": [24, 48, 96, 192], "kernels": 3, "strides": 2, "norm": "batch", "act": "relu"}
vit = stemlab.attach(stem, vit, seed=0)  # the blocks keep their weights
print("conv stem:", tuple(vit(images).shape))

# A stem alone is a module like any other.
tokens = stemlab.build_stem(stem, dim=192)(images)
print("tokens:", tuple(tokens.shape))

# What it costs, and the body that makes the whole as expensive as with the patchify stem.
model = {
    "stem": stem,
    "body": "vit_tiny_patch16_224",
    "match": {"reference": {"patch": 16}, "metric": "flops", "adjust": ["depth"], "tolerance": 0.05},
}
matched = stemlab.match(model)
print(f"matched: depth {matched.model.body.depth}, {matched.error:+.2%} multiply-adds, {matched.cost.params:,} parameters")
