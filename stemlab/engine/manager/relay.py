"""The custom tuner that NNI's dispatcher loads: it passes orders from the study's process on to NNI, and results back.

It is what NNI calls an advisor (it handles the manager's commands itself), because a tuner is asked for parameters
when NNI wants some, is not told of intermediate results, and ends the dispatcher when it raises. Nothing here raises,
and nothing that arrives is unpickled, as NNI's own reading of messages would do.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from typing import Any

from nni.runtime.msg_dispatcher_base import MsgDispatcherBase
from nni.runtime.tuner_command_channel import CommandType


class Relay(MsgDispatcherBase):  # type: ignore[misc]
    """Speaks with the study's process over the unix socket `address`, one JSON document a line; ends when it does."""

    def __init__(self, address: str) -> None:
        self._hub = socket.socket(socket.AF_UNIX)
        self._hub.connect(address)
        self._lock = threading.Lock()
        self._tell(event="here", pid=os.getpid())
        super().__init__()

    def run(self) -> None:
        """Serve until NNI's manager says that it ends, or is gone."""
        while True:
            command, data = self._channel._receive()
            if command is None or command is CommandType.Terminate:
                break
            with contextlib.suppress(Exception):
                self.process_command(command, json.loads(data) if data else None)
        os._exit(0)

    def process_command(self, command: CommandType, data: Any) -> None:
        """Tell the study's process what it has to know; the manager's wish for parameters is none of it."""
        if command is CommandType.Initialize:
            self.send(CommandType.Initialized, "")
            threading.Thread(target=self._hand_out, daemon=True).start()
            self._tell(event="ready")
        elif command is CommandType.ReportMetricData:
            self._tell(event="metric", job=data["parameter_id"], type=data["type"], value=data["value"])
        elif command is CommandType.TrialEnd:
            job = json.loads(data["hyper_params"])["parameter_id"]
            self._tell(event="end", job=job, status=data["event"])

    def _hand_out(self) -> None:
        """Pass on one order after the other, until the study's process is gone: then nobody wants this one either."""
        with contextlib.suppress(Exception):
            for line in self._hub.makefile("r", encoding="utf-8"):
                self.send(CommandType.NewTrialJob, line)
        os._exit(0)

    def _tell(self, **event: Any) -> None:
        try:
            with self._lock:
                self._hub.sendall(json.dumps(event).encode() + b"\n")
        except OSError:
            os._exit(0)
