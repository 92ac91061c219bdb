"""The same trials through Optuna with a plain loop, as its manual has it: what the embedded engine is compared with.

    python benchmarks/plain_optuna.py TRIALS CONCURRENCY

TRIALS has one TrialSpec a line, in JSON; Optuna's grid goes through them, in as many threads as run at a time. One line
of JSON comes out: for each trial, the seconds it trained and when it ended.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main() -> None:
    import optuna
    import torch

    from stemlab.data.digits import load_digits
    from stemlab.spec import TrialSpec
    from stemlab.train import run_trial

    torch.set_num_threads(1)
    trials = [TrialSpec.model_validate_json(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    load_digits(trials[0].data)  # kept from here on
    results = []

    def objective(trial: optuna.Trial) -> float:
        record = run_trial(trials[trial.suggest_categorical("trial", range(len(trials)))])
        results.append((record.metrics["seconds"], time.time()))
        return record.metrics["top1"]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.GridSampler({"trial": list(range(len(trials)))}, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=len(trials), n_jobs=int(sys.argv[2]))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
