"""The warm process of a slot: it has imported what its work needs, and runs an order for each connection.

`python -m stemlab.engine.manager.host SOCKET TASK`. Orders come over a unix socket, one a connection, and events go
back, one JSON document a line; nothing is pickled, no port is opened. The end of a connection before its record is
there means that the trial is wanted no more, and the host goes too, with all that the trial started; so it does when
the lock of the file `life` is freed (its study is gone, whatever ended it) or when nobody came for `idle` seconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import queue
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn


class _Client:
    """One connection: an order, and where its events go."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.finished = False
        self.lock = threading.Lock()

    def progress(self, row: dict[str, float]) -> None:
        self.send({"event": "epoch", "row": row})

    def send(self, event: dict[str, Any]) -> None:
        try:
            with self.lock:
                self.connection.sendall(json.dumps(event).encode() + b"\n")
        except OSError:
            _go()


def main() -> None:
    """Serve until nobody wants it."""
    address, task = sys.argv[1], json.loads(sys.argv[2])
    if task["life"] is not None:
        threading.Thread(target=_watch, args=(task["life"],), daemon=True).start()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(address)
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    Path(address).with_suffix(".pid").write_text(str(os.getpid()))
    server.listen()
    server.settimeout(task["idle"])
    tasks: queue.SimpleQueue[tuple[str, _Client]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(server, tasks), daemon=True).start()

    from ...spec import Order
    from ..work import perform, prepare

    work = prepare(task["work"])
    keep = None if task["keep"] is None else Path(task["keep"])
    while True:
        line, client = tasks.get()
        client.send({"event": "ready"})
        order = Order.model_validate(json.loads(line))
        record = perform(work, order, client.progress, keep)
        client.finished = True
        client.send({"event": "record", "record": json.loads(record.to_json())})


def _listen(server: socket.socket, tasks: queue.SimpleQueue[tuple[str, _Client]]) -> None:
    """Take one connection after the other; the clients of a slot hold its lock in turn."""
    while True:
        try:
            connection, _ = server.accept()
        except TimeoutError:
            _go()
        connection.settimeout(None)
        client = _Client(connection)
        client.send({"event": "here", "pid": os.getpid()})
        with connection, connection.makefile("r", encoding="utf-8") as lines:
            with contextlib.suppress(ConnectionError):
                for line in lines:
                    tasks.put((line, client))
            if not client.finished:
                _go()


def _watch(life: str) -> None:
    """Wait for the lock that the study holds as long as it lives."""
    with contextlib.suppress(OSError), open(life) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
    _go()


def _go() -> NoReturn:
    os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
