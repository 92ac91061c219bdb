"""Which part of BN + ReLU does a stem need? An ablation in Python, small enough to watch.

    python examples/ablate_relu_and_bn.py [FOLDER]
"""

import sys

import stemlab

study = stemlab.ablate(
    {
        "name": "relu_and_bn",
        "question": "Which part of BN + ReLU does a stem of three convolutions need?",
        "model": {
            "stem": {
                "channels": [8, 16, 32],
                "norm": {"choice": ["batch", "none"]},
                "act": {"choice": ["relu", "none", "gelu"]},
            },
            "body": {"dim": 32, "depth": 2, "heads": 2, "mlp_ratio": 2, "class_token": False},
        },
        "data": {"name": "digits"},
        "train": {"epochs": 3, "lr": {"log_uniform": [1e-3, 1e-2]}},  # the same learning rates for every arm
        "ablate": {"draws": 4, "seeds": [0]},
    },
    out=sys.argv[1] if len(sys.argv) > 1 else None,
)

print(study.compare("act"))  # paired by draw: each learning rate is compared with itself
print(study.compare("norm"))
print(study.effects())
print("report:", study.folder.path / "report.html")
