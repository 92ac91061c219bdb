"""What NNI starts for each trial: a thin client of a warm host process on the same machine.

It runs as a file of its own, by `python -I -S trial.py`, in a folder that has `settings.json`: nothing but the standard
library, so that it starts in a few hundredths of a second. It takes the order from NNI, a free slot, and that slot's
host; passes on what the host says; and ends when the host or its own parent does.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_PATIENCE = 120.0
"""Seconds to wait for a slot or for a host to answer: both are a matter of milliseconds when all is well."""


def start_host(settings: dict[str, Any], slot: int) -> subprocess.Popen[bytes] | None:
    """Start the host of a slot, unless there is one; None if there is.

    Whoever holds the lock of `slot-N.alive` is the host: it inherits the lock, and so do the processes that it forks.
    """
    base = Path(settings["folder"]) / f"slot-{slot}"
    alive = os.open(f"{base}.alive", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return None
        environment = {**os.environ, **settings["slots"][slot]}
        if home := environment.pop("STEMLAB_HOME", None):  # NNI's manager has a private one
            environment["HOME"] = home
        task = {name: settings[name] for name in ("work", "keep", "life", "idle")}
        with open(f"{base}.log", "wb") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "stemlab.engine.manager.host", f"{base}.sock", json.dumps(task)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=settings["cwd"],
                pass_fds=(alive,),
                # A group of its own: a kill reaches all that its trial started.
                start_new_session=True,
            )
    finally:
        os.close(alive)


def kill_host(group: int) -> None:
    """Kill a host and all that its trial started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


class _Gone(Exception):
    """Who wanted the trial, or ran it, is not there any more."""


class _Nni:
    """NNI's side: the trial's own channel, spoken to as its SDK does."""

    def __init__(self, url: str, job: str) -> None:
        parts = urlsplit(url)
        self._address, self._path, self._job = parts.netloc, parts.path, job
        self.rows = 0
        self._parent = os.getppid()
        self._number: int | None = None

    def check(self) -> None:
        """Raise _Gone where the parent died: NNI's manager, or its keeper on this machine."""
        if os.getppid() != self._parent:
            raise _Gone("NNI's manager is gone")

    def order(self) -> str:
        """Ask for the parameters of this trial; return the order in them, as JSON."""
        self._ask("PUT", {"type": "request_parameter"})
        while True:
            status, text = self._ask("GET")
            if status == 200:
                given = json.loads(json.loads(text)["parameter"])
                self._number = given["parameter_id"]
                return str(given["parameters"]["order"])
            if status != 408:  # none yet
                raise _Gone(f"NNI's manager answered {status}")
            self.check()

    def report(self, kind: str, value: dict[str, Any]) -> None:
        """Report an intermediate (PERIODICAL) or the FINAL result."""
        metric = {
            "parameter_id": self._number,
            "trial_job_id": self._job,
            "type": kind,
            "sequence": self.rows if kind == "PERIODICAL" else 0,
            "value": json.dumps(value),
        }
        self.rows += kind == "PERIODICAL"
        self._ask("PUT", {"type": "metric", "metric": json.dumps(metric)})

    def _ask(self, method: str, command: dict[str, Any] | None = None) -> tuple[int, bytes]:
        body = None if command is None else json.dumps(command)
        connection = http.client.HTTPConnection(self._address, timeout=_PATIENCE)
        try:
            connection.request(method, self._path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@contextlib.contextmanager
def _free_slot(settings: dict[str, Any], nni: _Nni) -> Iterator[int]:
    """Hold one of the slots of this machine; its lock ends with this process, however that ends."""
    end = time.monotonic() + _PATIENCE
    while True:
        for slot in range(len(settings["slots"])):
            lock = os.open(Path(settings["folder"]) / f"slot-{slot}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                continue
            try:
                yield slot
            finally:
                os.close(lock)
            return
        nni.check()
        if time.monotonic() > end:
            raise _Gone("no slot came free")
        time.sleep(0.02)


def _connect(settings: dict[str, Any], slot: int, nni: _Nni) -> tuple[socket.socket, Iterator[dict[str, Any]], int]:
    """Return a connection to the slot's host, what it will say, and its process group; start the host if need be."""
    address = str(Path(settings["folder"]) / f"slot-{slot}.sock")
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(address)
            said = _events(connection, nni)
            return connection, said, int(next(said)["pid"])
        except (OSError, StopIteration):  # none yet, or one that was just dying
            connection.close()
        start_host(settings, slot)
        nni.check()
        time.sleep(0.02)
    raise _Gone("no host answered")


def _events(connection: socket.socket, nni: _Nni) -> Iterator[dict[str, Any]]:
    """Yield what the host says, until it closes or dies; _Gone if NNI does so before."""
    connection.settimeout(1.0)
    rest = b""
    while True:
        try:
            part = connection.recv(1 << 16)
        except TimeoutError:
            nni.check()
            continue
        except ConnectionError:
            return
        if not part:
            return
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield json.loads(line)


def _number(values: dict[str, Any]) -> float:
    """Return the number that NNI's page shows of a row or of the metrics."""
    for name in ("top1", "loss", *values):
        if isinstance(values.get(name), int | float):
            return float(values[name])
    return math.nan


def _run(settings: dict[str, Any], nni: _Nni, order: str, slot: int) -> int:
    """Have the order run by the slot's host; return the exit status."""
    connection, said, group = _connect(settings, slot, nni)
    ready = False
    try:
        connection.sendall(order.encode() + b"\n")
        for event in said:
            if event["event"] == "ready":
                ready = True
            elif event["event"] == "epoch":
                nni.report("PERIODICAL", {"default": _number(event["row"]), "row": event["row"]})
            elif event["event"] == "record":
                record = event["record"]
                nni.report("FINAL", {"default": _number(record["metrics"]), "record": record, "rows": nni.rows})
                return 0 if record["status"] != "failed" else 1
    except BaseException:
        kill_host(group)
        raise
    finally:
        connection.close()
    kill_host(group)  # it is dead; what its trial started may not be
    log = (Path(settings["folder"]) / f"slot-{slot}.log").read_text(errors="replace")[-4000:].strip()
    print(log, file=sys.stderr)
    nni.report("FINAL", {"default": math.nan, "death": {"log": log, "ready": ready}})
    return 1


def main() -> int:
    """Run the trial that NNI started this process for; return the exit status."""
    settings = json.loads(Path("settings.json").read_text())
    nni = _Nni(os.environ["NNI_TRIAL_COMMAND_CHANNEL"], os.environ["NNI_TRIAL_JOB_ID"])
    try:
        order = nni.order()
        with _free_slot(settings, nni) as slot:
            return _run(settings, nni, order, slot)
    except (_Gone, OSError, ValueError, KeyError, TypeError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
