"""A warm worker process: imports what its work needs (torch, timm) once, then runs trials as they come.

Its arguments are the name of the work and the folder where trials may keep their state.

Orders come on stdin and events go to stdout, one JSON document a line; nothing is pickled, no port is opened. The
end of stdin means that the parent is gone, whatever killed it, and the worker goes too, in the middle of a trial.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any, TextIO


def main() -> None:
    """Serve until stdin ends."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes to the log, not into the protocol
    tasks: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(tasks,), daemon=True).start()

    from ..spec import Order
    from .work import perform, prepare

    work = prepare(sys.argv[1])
    keep = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    _send(events, {"event": "ready"})
    while True:
        order = Order.model_validate(json.loads(tasks.get()))
        record = perform(work, order, lambda row: _send(events, {"event": "epoch", "row": row}), keep)
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
