"""How long a study will take: a few steps of its trials, measured in as many processes as it will have.

`python -m stemlab.engine.estimate` is one such process: trials come on stdin and their paces go to stdout, one JSON
document a line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean

from ..errors import EngineError
from ..spec import TrialSpec
from .slots import Slot


def estimate(trials: Sequence[TrialSpec], slots: Sequence[Slot]) -> list[float]:
    """Return the seconds that each trial takes while all slots are busy; trials of one model are measured once."""
    kinds = {_kind(trial): trial for trial in trials}
    lines = "".join(trial.canonical_json() + "\n" for trial in kinds.values())
    processes = [
        subprocess.Popen(
            [sys.executable, "-P", "-m", "stemlab.engine.estimate"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **slot.environment()},
        )
        for slot in slots
    ]
    try:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(lines)
            process.stdin.close()
        answers = [_answer(process, len(kinds)) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    from ..train.pace import Pace

    paces = {
        kind: Pace(*(fmean(answer[place][name] for answer in answers) for name in ("build", "update", "image")))
        for place, kind in enumerate(kinds)
    }
    return [paces[_kind(trial)].seconds(trial) for trial in trials]


def _kind(trial: TrialSpec) -> tuple[object, ...]:
    """What decides how long an update takes."""
    return trial.model.digest, trial.data.digest, *(getattr(trial.train, name) for name in _OF_THE_PACE)


_OF_THE_PACE = (
    "batch_size", "accumulate", "optimizer", "precision", "ema", "drop_path", "token_labels", "augment",
    "channels_last", "compile", "checkpointing",
)  # fmt: skip


def _answer(process: subprocess.Popen[str], lines: int) -> list[dict[str, float]]:
    assert process.stdout is not None
    assert process.stderr is not None
    answer = [json.loads(line) for line in process.stdout]
    if len(answer) != lines:
        last = process.stderr.read().strip().splitlines()[-1:] or ["it said nothing"]
        raise EngineError(f"the time could not be measured: {last[0]}")
    return answer


def _serve() -> None:
    import torch

    from ..train.pace import pace

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    for line in sys.stdin:
        print(json.dumps(asdict(pace(TrialSpec.model_validate(json.loads(line))))), flush=True)


if __name__ == "__main__":
    _serve()
