"""What a search costs beyond training: the same twelve trials by stemlab, by plain NNI and by plain Optuna, in turn.

    python benchmarks/search_overhead.py [rounds]

(a) stemlab, engine embedded; (b) stemlab, engine nni; (c) NNI with a naive trial script (plain_nni/); (d) Optuna with a
plain loop (plain_optuna.py). All at concurrency 2, one CPU thread a trial, a process of their own each time.

`wall` is from the start of the command to its end; `beyond` is that less half of what the trials trained (two run at a
time). Trials that disturb each other train longer, so `training` is beside it. `start` is the time until the first
trial trains, and `each` what remains of `beyond` behind it, a trial: proposing, handing over, recording, the last trial
running alone, the report, the end.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stemlab.running import load_search

HERE = Path(__file__).parent
STUDY = HERE / "twelve.yaml"
CONCURRENCY = 2
ARMS = {
    "a": "stemlab, embedded",
    "b": "stemlab, nni",
    "c": "NNI, naive script",
    "d": "Optuna, plain loop",
}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    candidates = load_search(STUDY)
    trials = [candidate.trials[0] for candidate in candidates.probe().feasible]
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "trials.jsonl"
        listed.write_text("".join(trial.canonical_json() + "\n" for trial in trials))
        for number in range(rounds):
            for arm in ARMS:
                one = _run(arm, Path(folder) / f"{arm}{number}", listed)
                one["beyond"] = one["wall"] - one["training"] / CONCURRENCY
                one["each"] = (one["beyond"] - one["first"]) / len(trials)
                found[arm].append(one)
                shown = ", ".join(f"{name} {value:.2f}" for name, value in one.items())
                print(f"{arm} {ARMS[arm]}: {shown}", flush=True)
    print(f"\nmedians of {rounds}, seconds\n\n| | wall | training | beyond | start | each |\n|---|---|---|---|---|---|")
    for arm, name in ARMS.items():
        columns = ("wall", "training", "beyond", "first", "each")
        cells = (f"{statistics.median(one[column] for one in found[arm]):.2f}" for column in columns)
        print(f"| ({arm}) {name} | {' | '.join(cells)} |")


def _run(arm: str, out: Path, listed: Path) -> dict[str, float]:
    if arm in "cd":
        script = HERE / ("plain_nni/search.py" if arm == "c" else "plain_optuna.py")
        before = time.time()
        done = subprocess.run(
            [sys.executable, str(script), str(listed), str(CONCURRENCY)], stdout=subprocess.PIPE, text=True, check=True
        )
        return {**json.loads(done.stdout.splitlines()[-1]), "wall": time.time() - before}
    command = [str(Path(sys.executable).with_name("stemlab")), "search", str(STUDY), "--out", str(out)]
    engine = "embedded" if arm == "a" else "nni"
    before = time.time()
    with subprocess.Popen([*command, "--engine", engine, "--json"], stdout=subprocess.DEVNULL) as run:
        first = None
        while run.poll() is None:
            if first is None and (out / "records.jsonl").exists():
                first = time.time()
            time.sleep(0.02)
    wall = time.time() - before
    assert run.returncode == 0
    seconds = [json.loads(line)["metrics"]["seconds"] for line in (out / "records.jsonl").read_text().splitlines()]
    assert first is not None
    return {"wall": wall, "first": first - before - seconds[0], "training": sum(seconds)}


if __name__ == "__main__":
    main()
