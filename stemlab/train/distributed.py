"""One of several processes that train a trial together (team.py starts them).

They meet over a file in a private folder and talk over the loopback interface (nccl on GPUs, gloo on the CPU): no port
is open to the network. An order comes on stdin; events go to stdout, one JSON document a line. The end of stdin means
that the parent is gone, whatever killed it, and the process goes too.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from typing import IO, Any

import torch
import torch.distributed as dist

from ..spec import Order
from .process import settle
from .ranks import Ranks
from .trial import Saving, Training


def main() -> None:
    """Be one of the processes."""
    rank, count = int(sys.argv[1]), int(sys.argv[2])
    kind, meeting, micro = sys.argv[3], sys.argv[4], int(sys.argv[5])
    saving = Saving.from_json(sys.argv[6]) if len(sys.argv) > 6 else None
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes to the log, not among the events
    order = Order.model_validate(json.loads(sys.stdin.readline()))
    # What is forked from here closes sys.stdin, and would wait for ever for one that another thread reads.
    parent, sys.stdin = sys.stdin, open(os.devnull, encoding="utf-8")  # noqa: SIM115
    threading.Thread(target=_wait_for_the_end, args=(parent,), daemon=True).start()
    settle()
    try:
        if kind == "cuda":
            torch.cuda.set_device(rank)
        dist.init_process_group(
            "nccl" if kind == "cuda" else "gloo", init_method=f"file://{meeting}", rank=rank, world_size=count
        )
        device = f"cuda:{rank}" if kind == "cuda" else "cpu"
        progress = (lambda row: _send(events, {"event": "epoch", "row": row})) if rank == 0 else None
        training = Training(order, progress, device, saving, Ranks(rank, count))
        record = training.run(micro or None)
        if rank == 0:
            _send(events, {"event": "record", "record": json.loads(record.to_json())})
    except torch.cuda.OutOfMemoryError:
        _send(events, {"event": "out of memory", "micro": training.micro})
    except Exception:
        _send(events, {"event": "failed", "error": traceback.format_exc()})
    os._exit(0)  # whatever the others do: a process group that is left in good order waits for them


def _wait_for_the_end(parent: IO[str]) -> None:
    parent.read()
    os._exit(0)


def _send(events: IO[str], event: dict[str, Any]) -> None:
    try:
        events.write(json.dumps(event) + "\n")
        events.flush()
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    main()
