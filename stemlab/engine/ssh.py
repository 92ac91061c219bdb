"""The system's ssh: how it is called, and what its errors mean.

Keys only, known hosts only, nothing forwarded. What runs at the other end is one of the fixed texts below; everything
that a spec gives (even the interpreter's path) goes there on stdin, never into a command line that a shell reads.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..errors import EngineError
from ..spec import MachineSpec

PROGRAM = """exec /bin/sh -c 'IFS= read -r python && "$python" -P -'"""
"""Run the Python program on stdin with the interpreter that the first line of stdin names."""

WORKER = """exec /bin/sh -c 'IFS= read -r python && "$python" -P -m stemlab.engine.far; exit $?'"""
"""Run a worker with the interpreter that the first line names. The shell outlives it, to tell how it ended."""

LOST = 255
"""ssh's own exit code: not let in, or the connection is gone."""

_OPTIONS = (
    "BatchMode=yes",  # never ask
    "PreferredAuthentications=publickey",
    "PasswordAuthentication=no",
    "KbdInteractiveAuthentication=no",
    "IdentitiesOnly=yes",
    "StrictHostKeyChecking=yes",
    "UpdateHostKeys=no",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "ControlMaster=no",
    "ControlPath=none",  # a connection of its own: what ends it ends one worker
    "ConnectTimeout=15",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=3",
    "LogLevel=ERROR",  # no banners
)


def command(machine: MachineSpec, remote: str) -> list[str]:
    """Return the argument list that runs PROGRAM or WORKER on a machine; EngineError where ssh or the key is missing.

    The environment variable STEMLAB_KNOWN_HOSTS names a file of known hosts to use instead of the user's own.
    """
    if shutil.which("ssh") is None:
        raise EngineError("there is no ssh on this machine: install OpenSSH's client (openssh-client)")
    key = Path(machine.key).expanduser()
    if not key.is_file():
        raise EngineError(f"{place(machine)}: there is no key {key}; make one: ssh-keygen -t ed25519 -f {key}")
    options = [*_OPTIONS, f"IdentityFile={_literal(key)}"]
    known = os.environ.get("STEMLAB_KNOWN_HOSTS")
    if known:
        options += [f"UserKnownHostsFile={_literal(Path(known))}", "GlobalKnownHostsFile=none"]
    flags = [part for option in options for part in ("-o", option)]
    return ["ssh", "-T", *flags, "-p", str(machine.port), "-l", machine.user, "--", machine.host, remote]


def _literal(path: Path) -> str:
    """Return a path as ssh's options take it: in quotes, its percent signs no tokens."""
    if '"' in str(path):
        raise EngineError(f"{path}: ssh cannot take a path with quotation marks")
    return '"{}"'.format(str(path).replace("%", "%%").replace("\\", "\\\\"))


def place(machine: MachineSpec) -> str:
    """Return user@host, with the port where it is not 22."""
    return f"{machine.user}@{machine.host}" + ("" if machine.port == 22 else f":{machine.port}")


def is_refusal(log: str) -> bool:
    """Whether ssh's complaint is one that trying again does not mend: a host key or a key of ours."""
    return any(text in log for text in ("Host key verification failed", "Permission denied", "Bad configuration"))


def explain(machine: MachineSpec, code: int, log: str) -> str:
    """Return what an ended ssh means, and what to do about it."""
    where, port = place(machine), machine.port
    lines = log.strip().splitlines()
    last = lines[-1].removesuffix("\r") if lines else "it said nothing"
    # The name under which known_hosts lists it.
    known = machine.host if port == 22 else f"[{machine.host}]:{port}"
    if "IDENTIFICATION HAS CHANGED" in log or "has changed and you have requested" in log:
        return (
            f"{where}: its host key is not the one that is known; nothing was sent there. If the machine was really "
            f"set up anew, ask its owner for the fingerprint, then: ssh-keygen -R '{known}' && "
            f"ssh-keyscan -p {port} {machine.host} >> ~/.ssh/known_hosts"
        )
    if "Host key verification failed" in log:
        return (
            f"{where}: its host key is not known; nothing was sent there. Get it, and compare its fingerprint with "
            f"the machine's own: ssh-keyscan -p {port} {machine.host} >> ~/.ssh/known_hosts"
        )
    if "Permission denied" in log:
        return (
            f"{where}: the key {machine.key} is not let in (and stemlab uses no passwords). If it has a passphrase: "
            f"ssh-add {machine.key}; if the machine does not know it: "
            f"ssh-copy-id -i {machine.key}.pub -p {port} {machine.user}@{machine.host}"
        )
    if code == LOST:
        return f"{where}: cannot be reached: {last}"
    if code in (126, 127):
        return f"{where}: there is no interpreter {machine.python} ({last}); set its python"
    if "nknown option: -P" in log:
        return f"{where}: {machine.python} is older than Python 3.11, which stemlab needs; set another python"
    return f"{where}: {machine.python} ended with exit code {code}: {last}"
