"""What a search costs beyond training: the same twelve trials by stemlab, by plain NNI and by plain Optuna, in turn.

    python benchmarks/search_overhead.py [rounds [arms]]

(a) stemlab, engine embedded; (b) stemlab, engine nni; (c) NNI with a naive trial script (plain_nni/); (d) Optuna with a
plain loop (plain_optuna.py). All at concurrency 2, one CPU thread a trial, a process of their own each time.

`wall` is from the start of the command to its end. What is beyond training is `wall` less half of what the trials
trained, for two run at a time; trials that disturb each other train longer, so `training` is beside it. Parts of it
are `start`, until the first trial trains; `each`, what a place is idle, a trial, while there are trials for both
(proposing, handing over, recording); half of `alone`, in which the last trial has the machine to itself; and `end`,
behind it.
"""

from __future__ import annotations

import json
import os
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
    arms = sys.argv[2] if len(sys.argv) > 2 else "abcd"
    candidates = load_search(STUDY)
    trials = [candidate.trials[0] for candidate in candidates.probe().feasible]
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "trials.jsonl"
        listed.write_text("".join(trial.canonical_json() + "\n" for trial in trials))
        for number in range(rounds):
            for arm in arms:
                one = _run(arm, Path(folder) / f"{arm}{number}", listed)
                found[arm].append(one)
                shown = ", ".join(f"{name} {value:.2f}" for name, value in one.items())
                print(f"{arm} {ARMS[arm]}: {shown}", flush=True)
    columns = list(found[arms[0]][0])
    print(f"\nmedians of {rounds}, seconds\n\n| | {' | '.join(columns)} |\n|---{'|---' * len(columns)}|")
    for arm in arms:
        cells = (f"{statistics.median(one[column] for one in found[arm]):.2f}" for column in columns)
        print(f"| ({arm}) {ARMS[arm]} | {' | '.join(cells)} |")


def _run(arm: str, out: Path, listed: Path) -> dict[str, float]:
    os.environ["STEMLAB_CACHE"] = f"{out}-cache"  # as if it were the first study on a machine
    before = time.time()
    results = _run_plain(arm, listed) if arm in "cd" else _run_stemlab(arm, out)
    wall = time.time() - before
    training = sum(seconds for seconds, _ in results)
    start = min(ended - seconds for seconds, ended in results)
    *_, last_but_one, last = sorted(ended for _, ended in results)
    alone = last - last_but_one
    return {
        "wall": wall,
        "training": training,
        "beyond": wall - training / CONCURRENCY,
        "start": start - before,
        "each": (CONCURRENCY * (last - start) - training - alone) / len(results),
        "alone": alone,
        "end": before + wall - last,
    }


def _run_plain(arm: str, listed: Path) -> list[tuple[float, float]]:
    """Run the trials without stemlab; return what each trained, and when it ended."""
    script = HERE / ("plain_nni/search.py" if arm == "c" else "plain_optuna.py")
    command = [sys.executable, str(script), str(listed), str(CONCURRENCY)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [(seconds, ended) for seconds, ended in json.loads(done.stdout.splitlines()[-1])]


def _run_stemlab(arm: str, out: Path) -> list[tuple[float, float]]:
    """Run the study; return what each trial trained, and when it was on record."""
    engine = "embedded" if arm == "a" else "nni"
    command = [str(Path(sys.executable).with_name("stemlab")), "search", str(STUDY), "--out", str(out)]
    records, ends = out / "records.jsonl", []
    with subprocess.Popen([*command, "--engine", engine, "--json"], stdout=subprocess.DEVNULL) as run:
        while run.poll() is None:
            there = records.read_bytes().count(b"\n") if records.exists() else 0
            ends += [time.time()] * (there - len(ends))
            time.sleep(0.02)
    assert run.returncode == 0
    seconds = [json.loads(line)["metrics"]["seconds"] for line in records.read_text().splitlines()]
    return list(zip(seconds, ends, strict=True))


if __name__ == "__main__":
    main()
