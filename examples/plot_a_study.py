"""Read a finished ablation and draw a figure of one's own: accuracy against the learning rate, an arm a line.

    python examples/plot_a_study.py FOLDER [FIGURE.svg]
"""

import sys

from matplotlib.figure import Figure

import stemlab

folder, file = sys.argv[1], (sys.argv[2:] or ["own.svg"])[0]
study = stemlab.Study(folder)
records = study.records  # one row a trial: arm, factors, draws, seed, status, metrics, cost

figure = Figure(figsize=(6, 4), layout="constrained")
axes = figure.add_subplot(xscale="log", xlabel="learning rate", ylabel="test accuracy")
for arm, runs in records.groupby("arm", sort=False):
    means = runs.groupby("lr")["test_top1"].mean()
    axes.plot(means.index, means, marker="o", label=arm)
axes.legend(frameon=False)
figure.savefig(file)

steep = study.edf(by="norm").frame  # error distribution functions, with bands
print(steep[["norm", "error", "fraction", "low", "high"]].round(3).to_string(index=False))
print(f"best: {study.best.stem.canonical_json()}")
