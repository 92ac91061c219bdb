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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO


def _exit() -> None:
    os._exit(0)


def main(arguments: Sequence[str], end: Callable[[], None] = _exit, silence: float | None = None) -> None:
    """Serve until stdin ends or, with `silence`, says nothing for that many seconds: an empty line is a sign of life.

    `end` is then called, in whichever thread notices.
    """
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes to the log, not into the protocol
    tasks: queue.SimpleQueue[str] = queue.SimpleQueue()
    # What is forked from here closes sys.stdin, and would wait for ever for one that another thread reads.
    orders, sys.stdin = sys.stdin, open(os.devnull, encoding="utf-8")  # noqa: SIM115
    threading.Thread(target=_listen, args=(orders, tasks, end, silence), daemon=True).start()

    from ..spec import Order
    from .work import perform, perform_pack, prepare

    work = prepare(arguments[0])
    keep = Path(arguments[1]) if len(arguments) > 1 else None
    _send(events, end, {"event": "ready"})
    while True:
        task = json.loads(tasks.get())
        if "pack" in task:
            orders = [Order.model_validate(order) for order in task["pack"]]
            each = lambda member, row: _send(events, end, {"event": "epoch", "member": member, "row": row})  # noqa: E731
            records = perform_pack(work, orders, each, keep)
            _send(events, end, {"event": "records", "records": [json.loads(record.to_json()) for record in records]})
            continue
        order = Order.model_validate(task)
        record = perform(work, order, lambda row: _send(events, end, {"event": "epoch", "row": row}), keep)
        _send(events, end, {"event": "record", "record": json.loads(record.to_json())})


def _listen(orders: TextIO, tasks: queue.SimpleQueue[str], end: Callable[[], None], silence: float | None) -> None:
    heard = threading.Event()
    if silence is not None:
        threading.Thread(target=_watch, args=(heard, end, silence), daemon=True).start()
    for line in orders:
        heard.set()
        if line.strip():
            tasks.put(line)
    end()


def _watch(heard: threading.Event, end: Callable[[], None], silence: float) -> None:
    while heard.wait(silence):
        heard.clear()
    end()


def _send(events: TextIO, end: Callable[[], None], event: dict[str, Any]) -> None:
    try:
        events.write(json.dumps(event) + "\n")
        events.flush()
    except BrokenPipeError:
        end()


if __name__ == "__main__":
    main(sys.argv[1:])
