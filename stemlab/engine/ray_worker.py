"""What runs in the processes of a Ray cluster: a warm worker, which takes orders and gives events as lines of JSON."""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from ..spec import Order
from .slots import Slot
from .work import perform, prepare


class RayWorker:
    """Imports what its work needs once, then runs trials as they come. Nothing but text goes in or out.

    `setup` is JSON: the `work`, its `threads`, whether it is on the `cpu` alone, the folder `keep` where trials may
    keep their state, and the folder `cwd` where the study was started; folders that this node has not got are left out.
    """

    def __init__(self, setup: str) -> None:
        options = json.loads(setup)
        environment = Slot((), options["threads"]).environment()
        if not options["cpu"]:  # Ray says which GPUs are ours
            del environment["CUDA_VISIBLE_DEVICES"]
        os.environ.update(environment)
        if os.path.isdir(options["cwd"]):
            os.chdir(options["cwd"])
        self.keep = Path(options["keep"]) if options["keep"] and os.path.isdir(options["keep"]) else None
        self.work = prepare(options["work"])

    def version(self) -> str:
        """Return the version of stemlab on this node, as soon as the worker is ready."""
        return metadata.version("stemlab")

    def run(self, order: str) -> Iterator[str]:
        """Run one trial: yield an event for each epoch, then one with the record."""
        events: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._run, args=(order, events), daemon=True).start()
        while True:
            event = events.get()
            yield event
            if json.loads(event)["event"] == "record":
                return

    def _run(self, text: str, events: queue.SimpleQueue[str]) -> None:
        try:
            order = Order.model_validate(json.loads(text))
            record = perform(self.work, order, lambda row: events.put(_line("epoch", row=row)), self.keep)
            events.put(_line("record", record=json.loads(record.to_json())))
        except BaseException:
            # What ends a process elsewhere (sys.exit, say) would end this thread alone and be waited for for ever.
            os._exit(1)


def _line(event: str, **what: object) -> str:
    return json.dumps({"event": event, **what})
