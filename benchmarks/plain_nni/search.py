"""The same trials through NNI as its manual has it: what the engine `nni` is compared with.

    python benchmarks/plain_nni/search.py TRIALS CONCURRENCY

TRIALS has one TrialSpec a line, in JSON. NNI's grid goes through them, with a trial script that imports all it needs
each time. One line of JSON comes out: for each trial, the seconds it trained and when it ended.

NNI's manager, used like this, has no authentication; a preload keeps its port on this machine. It has
a HOME of its own.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    trials, concurrency = Path(sys.argv[1]).absolute(), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        home = os.environ.get("HOME", "")
        os.environ |= {"HOME": folder, "NODE_OPTIONS": f"--require {HERE / 'loopback.js'}"}
        count = len(trials.read_text().splitlines())
        (Path(folder) / "results").mkdir()
        os.environ |= {"TRIALS": str(trials), "RESULTS": str(Path(folder) / "results"), "TRIAL_HOME": home}
        _experiment(folder, count, concurrency)
        results = [json.loads(file.read_text()) for file in (Path(folder) / "results").iterdir()]
    if len(results) < count:
        sys.exit(f"only {len(results)} of {count} trials left a result")
    print(json.dumps([(result["seconds"], result["ended"]) for result in results]))


def _experiment(folder: str, count: int, concurrency: int) -> None:
    from nni.experiment import Experiment

    experiment = Experiment("local")
    experiment.config.search_space = {"trial": {"_type": "choice", "_value": list(range(count))}}
    experiment.config.tuner.name = "GridSearch"
    experiment.config.trial_command = f"{sys.executable} trial.py"
    experiment.config.trial_code_directory = HERE
    experiment.config.trial_concurrency = concurrency
    experiment.config.max_trial_number = count
    experiment.config.experiment_working_directory = folder
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        experiment.run(port)
    finally:
        experiment.stop()
        sys.stdout = stdout


if __name__ == "__main__":
    main()
