"""One process that imports what the work needs, once, and forks the workers of this machine from there.

A worker is then ready at once, also in the place of one that died, and all share the memory of what is imported.
`python -m stemlab.engine.fork_server WORK` serves on the socket that is its stdin; requests and answers are lines of
JSON, and a request for a worker carries the three ends of its pipes. The end of the socket means that the study is
gone, whatever ended it: the server kills the workers, and goes.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import IO, Any, NoReturn

from .worker_process import Process, WorkerDied, tail

_PATIENCE = 10.0
"""Seconds within which the server ends that was told to."""


class ForkServer:
    """The server, seen from outside. Safe for threads."""

    def __init__(self, work: str, environment: Mapping[str, str]) -> None:
        """Start one that imports the work named; `environment` is what all workers have in common."""
        self._ready = False
        self._lock = threading.Lock()
        self._channel, theirs = socket.socketpair()
        self._answers = self._channel.makefile("rb")
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the server)
        with theirs:
            self._process = subprocess.Popen(
                # -P: a torch.py in the user's folder is not torch.
                [sys.executable, "-P", "-m", "stemlab.engine.fork_server", work],
                stdin=theirs.fileno(),
                stdout=self._log,
                stderr=self._log,
                env={**os.environ, **environment},
                process_group=0,  # Ctrl-C reaches us alone
            )

    def fork(self, arguments: Sequence[str], environment: Mapping[str, str], log: IO[bytes]) -> Forked:
        """Return a new worker, which logs to `log`; the first takes as long as the imports. WorkerDied if it cannot."""
        stdin, to_worker = os.pipe()
        from_worker, stdout = os.pipe()
        request = {"arguments": list(arguments), "environment": dict(environment)}
        try:
            pid = self._ask(request, [stdin, stdout, log.fileno()])
        except OSError:
            os.close(to_worker)
            os.close(from_worker)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=1)
            raise WorkerDied(self._process.poll() or -signal.SIGKILL, tail(self._log), was_ready=False) from None
        finally:
            os.close(stdin)
            os.close(stdout)
        return Forked(self, pid, to_worker, from_worker)

    def wait_for(self, pid: int, seconds: float) -> int | None:
        """Return the exit code of a worker (negative: a signal), None if it takes longer; OSError if unknown."""
        code: int | None = self._ask({"wait": pid, "seconds": seconds})
        return code

    def is_alive(self) -> bool:
        """Return whether it can fork more workers."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it and all of its workers, and wait until they are gone."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(timeout=_PATIENCE if self._ready else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with self._lock:
            self._answers.close()
            self._channel.close()
            self._log.close()

    def _ask(self, request: dict[str, Any], files: Sequence[int] = ()) -> Any:
        with self._lock:
            if self._channel.fileno() < 0:
                raise OSError("it was closed")
            socket.send_fds(self._channel, [json.dumps(request).encode() + b"\n"], files)
            answer = self._answers.readline()
            if not answer:
                raise OSError("it is gone")
            self._ready = True
            return json.loads(answer)


class Forked(Process):
    """A forked worker, as much of subprocess.Popen as WorkerProcess asks for."""

    def __init__(self, server: ForkServer, pid: int, stdin: int, stdout: int) -> None:
        self.pid = pid
        self.stdin, self.stdout = os.fdopen(stdin, "wb"), os.fdopen(stdout, "rb")
        self._server = server
        self._code: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code (negative: a signal); subprocess.TimeoutExpired if it takes longer than `timeout`."""
        while self._code is None:
            seconds = 1.0 if timeout is None else timeout
            try:
                self._code = self._server.wait_for(self.pid, seconds)
            except OSError:
                self._code = self._end_without_server()
            if self._code is None and timeout is not None:
                raise subprocess.TimeoutExpired("worker", timeout)
        return self._code

    def kill(self) -> None:
        """Kill it and all that it started."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _end_without_server(self) -> int:
        """See that it is gone; nobody is left who could tell how it ended."""
        end = time.monotonic() + 1
        with contextlib.suppress(ProcessLookupError, PermissionError):
            while time.monotonic() < end:  # as a zombie it stays until init takes notice
                os.killpg(self.pid, signal.SIGKILL)
                time.sleep(0.01)
        return -signal.SIGKILL


def main() -> None:
    """Serve until the study is gone."""
    from .work import find

    channel = socket.socket(fileno=os.dup(0))
    gc.disable()  # a tenth of the time of the imports, in which next to nothing becomes garbage
    find(sys.argv[1])
    gc.freeze()  # what is imported stays shared: a collection would write to its pages
    gc.enable()
    children: set[int] = set()
    requests, files = b"", []
    while True:
        while b"\n" not in requests:
            part, new, _, _ = socket.recv_fds(channel, 1 << 16, 3)
            if not part:
                _end(children)
            requests += part
            files += new
        line, _, requests = requests.partition(b"\n")
        request = json.loads(line)
        if "wait" in request:
            answer = _wait(request["wait"], request["seconds"])
            if answer is not None:
                children.discard(request["wait"])
        else:
            answer = _fork(request, files, channel)
            children.add(answer)
            files = []
        with contextlib.suppress(BrokenPipeError):
            channel.sendall(json.dumps(answer).encode() + b"\n")


def _fork(request: dict[str, Any], files: list[int], channel: socket.socket) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            channel.close()
            _become_worker(request, files)
        finally:
            os._exit(1)  # never back into the server's loop
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)  # so does the child; whoever is first
    for file in files:
        os.close(file)
    return pid


def _become_worker(request: dict[str, Any], files: list[int]) -> None:
    from . import worker

    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    os.environ.update(request["environment"])
    try:
        worker.main(request["arguments"])
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()


def _wait(pid: int, seconds: float) -> int | None:
    """Return a child's exit code, None if it does not end in time."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(0.005)


def _end(children: set[int]) -> NoReturn:
    for pid in children:
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
    for pid in children:
        with contextlib.suppress(OSError):
            os.waitpid(pid, 0)
    os._exit(0)


if __name__ == "__main__":
    main()
