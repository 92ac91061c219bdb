"""NNI's manager here, its trials on other machines: what `service: remote` of the engine `nni` is.

NNI's own service of that name is not used: it takes any host key, installs packages over there, opens a port to the
network on every machine, and the manager as well (docs/machines.md). So NNI's trials are processes of this machine
that stand for one place each; what they hand on goes through a gate, a unix socket, to our own workers over there.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ...errors import EngineError
from ...records import TrialRecord
from ...spec import EngineSpec, Order
from .. import machines, ssh_runner
from ..runner import RETRIES, Progress, Runner, RunnerClosed, retries_of
from ..slots import Slot
from ..work import TRAIN
from .runner import NniRunner
from .service import Service, local

_ADDRESS = "STEMLAB_GATE"


def through(order: Order, progress: Progress, keep: Path | None = None) -> TrialRecord:
    """The work of the processes that stand for a place: hand the order to the gate, and on what comes back."""
    with socket.socket(socket.AF_UNIX) as gate:
        gate.connect(os.environ[_ADDRESS])
        gate.sendall(order.canonical_json().encode() + b"\n")
        with gate.makefile("r", encoding="utf-8") as lines:
            for line in lines:
                event = json.loads(line)
                if event["event"] == "record":
                    return TrialRecord.from_dict(event["record"])
                progress(event["row"])
    raise EngineError("the study's process gave no record")


class _Gate:
    """Where orders come in that a runner of this process is to run."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.error: EngineError | None = None
        self._server = socket.socket(socket.AF_UNIX)

    def open(self, folder: Path) -> Service:
        """Open it in a folder of this user alone; return NNI's service, whose trials go through it."""
        address = str(folder / "gate.sock")
        self._server.bind(address)
        os.chmod(address, 0o600)
        self._server.listen()
        threading.Thread(target=self._serve, name="gate", daemon=True).start()
        near = local([Slot((), 1)] * self.runner.slots, work=f"{__name__}:through")(folder)
        return replace(near, settings={**near.settings, "slots": [{_ADDRESS: address}] * self.runner.slots})

    def close(self) -> None:
        """Let no more orders in."""
        with contextlib.suppress(OSError):  # it was not open
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._run, args=(client,), name="gate", daemon=True).start()

    def _run(self, client: socket.socket) -> None:
        """Run one order. Where the client is gone nobody wants it: the next row cannot be sent, and that ends it."""

        def send(**event: object) -> None:
            client.sendall(json.dumps(event).encode() + b"\n")

        with client, client.makefile("r", encoding="utf-8") as lines, contextlib.suppress(OSError, RunnerClosed):
            order = Order.model_validate_json(lines.readline())
            try:
                record = self.runner.run(order, lambda row: send(event="epoch", row=row))
            except EngineError as error:
                self.error = error
            else:
                send(event="record", record=json.loads(record.to_json()))


class RemoteRunner:
    """Runs trials through an experiment of NNI on this machine, by a runner that has them run on others."""

    def __init__(self, far: Runner, retries: int = RETRIES, port: int | None = None) -> None:
        self.slots = far.slots
        self._far, self._gate = far, _Gate(far)
        try:
            self._near = NniRunner(self._gate.open, retries, port)
        except BaseException:
            self._gate.close()
            far.close()
            raise

    @property
    def page(self) -> str:
        """The URL of NNI's page."""
        return self._near.page

    def run(self, order: Order, progress: Progress) -> TrialRecord:
        """Run one trial; EngineError where NNI's manager cannot be kept up, or no machine is left."""
        record = self._near.run(order, progress)
        if self._gate.error is not None:
            raise self._gate.error
        return record

    def close(self) -> None:
        """Stop NNI, all trials and all connections."""
        self._near.close()
        self._gate.close()
        self._far.close()


def start(
    engine: EngineSpec, trials: int, keep: Path | None, note: Callable[[str], None], work: str = TRAIN
) -> RemoteRunner:
    """Start the runner of `service: remote`; EngineError, before anything runs, where a machine cannot be used."""
    found = machines.require(engine.machines or ())
    far = ssh_runner.start(engine, found, trials, note, keep, work)
    return RemoteRunner(far, retries_of(engine), engine.port)
