"""A warm worker process: imports torch and timm once, then runs trials as they come.

Trials come on stdin and events go to stdout, one JSON document a line; nothing is pickled, no port is opened. The
end of stdin means that the parent is gone, whatever killed it, and the worker goes too, in the middle of a trial.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from typing import Any, TextIO


def main() -> None:
    """Serve until stdin ends."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes to the log, not into the protocol
    tasks: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(tasks,), daemon=True).start()

    import torch

    from ..spec import TrialSpec
    from ..train import run_trial
    from .runner import failed

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if torch.cuda.is_available():
        # The same trial is to give the same numbers again; a kernel that cannot do so warns in the log.
        torch.use_deterministic_algorithms(True, warn_only=True)
    _send(events, {"event": "ready"})
    while True:
        trial = TrialSpec.model_validate(json.loads(tasks.get()))
        try:
            record = run_trial(trial, lambda row: _send(events, {"event": "epoch", "row": row}))
        except Exception:
            record = failed(trial, traceback.format_exc())
        _send(events, {"event": "record", "record": json.loads(record.to_json())})


def _listen(tasks: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        tasks.put(line)
    os._exit(0)


def _send(events: TextIO, event: dict[str, Any]) -> None:
    try:
        events.write(json.dumps(event) + "\n")
        events.flush()
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    main()
