"""Starting NNI's manager, safely. All that depends on NNI's version is here and in loopback.js."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from ...errors import EngineError
from . import trial
from .service import Service

_VERSION = "3.0"
_ELSE = "or take another engine (engine.kind: embedded, or ray)"
_ANCHORS = {
    "core/nnimanager.js": ("async initTrainingService(", "this.pollInterval", "async onTrialJobMetrics(metric)"),
    "training_service/v3/compat.js": ("allocatedParameters.has(trialId)", "form.id && form.envId", "schedule()"),
    "core/tuner_command_channel.js": ("function getTunerServer()", "connect = new deferred_1.Deferred()"),
    "rest_server/index.js": ("app.listen(this.port)",),
    "common/globals/arguments.js": ("urlPrefix", "experimentsDirectory", "pythonInterpreter"),
}
"""What loopback.js and the command line build on, by the manager's files."""

_START = 120.0
"""Seconds that the manager and its dispatcher may take to start; on a busy machine they have taken ten."""


class ManagerDied(Exception):
    """NNI's manager, or its dispatcher, is not there any more, or is of no use."""


def find() -> Path:
    """Return the folder of NNI's manager; EngineError, with the cure, where it is not the one that was tried."""
    try:
        version = metadata.version("nni")
    except metadata.PackageNotFoundError:
        raise EngineError(f"NNI is not installed: pip install nni=={_VERSION}, {_ELSE}") from None
    if version != _VERSION:
        raise EngineError(f"NNI {version} is installed; its manager is safe to use as {_VERSION} only: "
                          f"pip install nni=={_VERSION}, {_ELSE}")  # fmt: skip
    spec = importlib.util.find_spec("nni_node")
    if sys.platform == "win32" or spec is None or not spec.submodule_search_locations:
        raise EngineError(f"this installation of NNI has no manager for this platform; {_ELSE.removeprefix('or ')}")
    folder = Path(spec.submodule_search_locations[0])
    for name, anchors in _ANCHORS.items():
        file = folder / name
        text = file.read_text(errors="replace") if file.exists() else ""
        missing = [anchor for anchor in anchors if anchor not in text]
        if missing:
            raise EngineError(f"NNI's manager is not as released ({name} lacks {missing[0]!r}), so it cannot be made "
                              f"safe: pip install --force-reinstall nni=={_VERSION}, {_ELSE}")  # fmt: skip
    return folder


def free_port(wanted: int | None) -> int:
    """Return a port of 127.0.0.1 that nobody listens on; EngineError where the wanted one is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted or 0))
        except OSError as error:
            raise EngineError(f"engine.port (={wanted}): {error.strerror}; leave it out for any free one") from None
        return int(probe.getsockname()[1])


class Manager:
    """A running experiment of NNI: Node's process, and by it the dispatcher and the clients of trials, one group.

    They die with this process: Node when the pipe to its stdin ends, the others with Node or with our sockets.
    `hub` is the unix socket where the dispatcher's relay reports.
    """

    def __init__(self, folder: Path, service: Service, hub: Path, port: int, prefix: str) -> None:
        self._folder, self._service, self._hub, self._port, self._prefix = folder, service, hub, port, prefix
        node = find()
        self._token = secrets.token_urlsafe(24)
        self._log, self._applied = folder / "manager.log", folder / "applied.json"
        self._applied.unlink(missing_ok=True)
        # Each attempt has a home of its own: NNI's list of experiments names what is no more.
        home = folder / f"home-{secrets.token_hex(4)}"
        home.mkdir(mode=0o700)
        self._code = folder / "code"
        self._code.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(trial.__file__, self._code / "trial.py")
        (self._code / "settings.json").write_text(json.dumps(service.settings))
        names = (f"127.0.0.1:{port}", f"localhost:{port}", *service.hosts)
        manager = {
            "prefix": prefix,
            "token": self._token,
            "hosts": names,
            "poll": 0.1,
            "folder": str(folder),
            "applied": str(self._applied),
        }
        experiment = f"stemlab{secrets.token_hex(4)}"
        self._experiments = home / "experiments"
        arguments = {
            "port": port,
            "experiment-id": experiment,
            "action": "create",
            "experiments-directory": self._experiments,
            "log-level": "info",
            # Node gives it to a shell.
            "python-interpreter": shlex.quote(sys.executable),
            "mode": service.config["platform"],
        }
        command = [str(node / "node"), "--max-old-space-size=4096", str(node / "main.js")]
        command += [text for name, value in arguments.items() for text in (f"--{name}", str(value))]
        environment = {name: value for name, value in os.environ.items() if name != "HOME"}
        if "HOME" in os.environ:
            environment["STEMLAB_HOME"] = os.environ["HOME"]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=node,
                env={
                    **environment,
                    "HOME": str(home),
                    "NODE_OPTIONS": f"--require {json.dumps(str(Path(__file__).with_name('loopback.js')))}",
                    "STEMLAB_MANAGER": json.dumps(manager),
                },
                process_group=0,
            )

    def begin(self) -> None:
        """Start the experiment once the manager listens, on this machine alone, and answers."""
        end = time.monotonic() + _START
        is_checked = False
        while not (is_checked and self._answers()):
            self.check_alive()
            if not is_checked and self._listeners():
                self.check_sockets()  # before it is sent a word: another program may have taken the port
                is_checked = True
            if time.monotonic() > end:
                raise ManagerDied(f"it did not answer within {_START:.0f} s")
            time.sleep(0.05)
        try:
            status, text = self._ask("POST", "/experiment", self.config())
        except OSError as error:
            raise ManagerDied(f"it refused the experiment: {error}") from None
        if status != 200:
            raise ManagerDied(f"it refused the experiment: {text.decode(errors='replace')[:500]}")

    def config(self) -> dict[str, Any]:
        """Return the experiment, in the words of NNI's manager (those of nni.experiment.ExperimentConfig.json)."""
        common = {
            "trialCommand": self._service.command,
            "trialCodeDirectory": str(self._code),
            "debug": False,
        }
        return {
            "experimentName": "stemlab",
            "experimentType": "hpo",
            "searchSpace": {},
            "trialConcurrency": self._service.slots,
            "useAnnotation": False,
            "logLevel": "info",
            "experimentWorkingDirectory": str(self._experiments),
            "tuner": {
                "className": "stemlab.engine.manager.relay.Relay",
                "codeDirectory": str(Path(__file__).parents[3]),
                "classArgs": {"address": str(self._hub)},
            },
            "trainingService": {**common, **self._service.config},
            **common,
        }

    def check_mended(self) -> None:
        """EngineError where loopback.js has not mended all that it was to."""
        applied = json.loads(self._applied.read_text()) if self._applied.exists() else []
        missing = self._service.mends - set(applied)
        if missing:
            raise EngineError(f"NNI's manager could not be made safe ({', '.join(sorted(missing))}); "
                              f"reinstall it: pip install --force-reinstall nni=={_VERSION}, {_ELSE}")  # fmt: skip

    def check_sockets(self) -> None:
        """EngineError where the manager or what it started listens anywhere but on its port of 127.0.0.1."""
        found = self._listeners()
        if not found:
            self.check_alive()
        if found != {("127.0.0.1", self._port)}:
            where = ", ".join(f"{host}:{port}" for host, port in sorted(found)) or "nowhere"
            raise EngineError(
                f"NNI's manager was to listen on 127.0.0.1:{self._port} alone, but listens on {where}; "
                f"that is not safe, so it was stopped; {_ELSE[3:]}"
            )

    def _listeners(self) -> set[tuple[str, int]]:
        """Where the manager, and what it started, listens."""
        import psutil

        found = set()
        try:
            root = psutil.Process(self.process.pid)
            family = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            raise ManagerDied("it ended") from None
        for process in family:
            try:
                # psutil before 6 has another name for it
                sockets = getattr(process, "net_connections", None) or process.connections
                found |= {tuple(s.laddr) for s in sockets(kind="inet") if s.status == psutil.CONN_LISTEN}
            except psutil.NoSuchProcess:
                continue
            except psutil.AccessDenied:
                raise EngineError(f"this system does not tell where NNI's manager listens; {_ELSE[3:]}") from None
        return found

    def check_alive(self) -> None:
        """ManagerDied where Node's process has ended."""
        code = self.process.poll()
        if code is not None:
            why = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise ManagerDied(f"it ended ({why})")

    def check_status(self) -> None:
        """ManagerDied where the manager says so itself, or does not answer in good time."""
        try:
            status, text = self._ask("GET", "/check-status", patience=60)
        except OSError as error:
            raise ManagerDied(f"it does not answer ({error})") from None
        state = json.loads(text).get("status") if status == 200 else str(status)
        if state in ("ERROR", "STOPPING", "STOPPED") or status != 200:
            raise ManagerDied(f"its status is {state}")

    def tail(self) -> str:
        """Return the last lines that the manager and the dispatcher logged."""
        texts = [self._log, *self._experiments.glob("*/log/*.log")]
        lines = [line for file in texts for line in file.read_text(errors="replace").splitlines()[-8:]]
        return "\n".join(lines[-24:])

    def close(self) -> None:
        """Kill the manager, the dispatcher and the clients of the trials, and wait until the manager is gone."""
        trial.kill_host(self.process.pid)
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()

    def _answers(self) -> bool:
        try:
            # It says INITIALIZING as soon as it listens, and more in JSON when it can take an experiment.
            status, text = self._ask("GET", "/check-status", patience=10)
        except OSError:
            return False
        return status == 200 and b"status" in text

    def _ask(self, method: str, path: str, body: Any = None, patience: float = _START) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=patience)
        headers = {"Content-Type": "application/json", "X-Stemlab": self._token}
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, f"/{self._prefix}/api/v1/nni{path}", text, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from None
        finally:
            connection.close()
