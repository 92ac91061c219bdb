"""The study's end of the relay: orders go out to NNI's dispatcher, what it learns comes back, over a unix socket."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import threading
from pathlib import Path
from typing import Any


class Hub:
    """Waits for one relay at a time; its events are in `events`, the last of which is None: the relay is gone."""

    def __init__(self, address: Path) -> None:
        self.address = address
        self.events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._relay: socket.socket | None = None
        self._lock = threading.Lock()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(address))
        os.chmod(address, 0o600)
        self._server.listen()
        threading.Thread(target=self._listen, name="relay", daemon=True).start()

    def send(self, job: int, parameters: dict[str, Any]) -> None:
        """Hand NNI a trial; one that is lost because the relay is gone is handed to the next by its owner."""
        content = {
            "parameter_id": job,
            "parameter_source": "algorithm",
            "parameters": parameters,
            "parameter_index": 0,
        }
        with self._lock, contextlib.suppress(OSError):
            if self._relay is not None:
                self._relay.sendall(json.dumps(content).encode() + b"\n")

    def close(self) -> None:
        """Take no more relays, and drop the one there is: it ends by that."""
        with self._lock, contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()
        self.drop()

    def drop(self) -> None:
        """Drop the relay; it ends by that."""
        with self._lock, contextlib.suppress(OSError):
            if self._relay is not None:
                self._relay.shutdown(socket.SHUT_RDWR)

    def _listen(self) -> None:
        while True:
            try:
                relay, _ = self._server.accept()
            except OSError:
                return
            with self._lock:
                self._relay = relay
            with relay, relay.makefile("r", encoding="utf-8") as lines, contextlib.suppress(OSError):
                for line in lines:
                    self.events.put(json.loads(line))
            with self._lock:
                self._relay = None
            self.events.put(None)
