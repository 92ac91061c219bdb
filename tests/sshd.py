"""Real SSH servers for tests, as good as machines: own address where we may, own keys, own processes."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
NEEDS_SSHD = pytest.mark.skipif(SSHD is None or shutil.which("ssh") is None, reason="openssh-server is not installed")


def keygen(file: Path) -> Path:
    """Make an ed25519 key without a passphrase; return the file of its private half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "stemlab test", "-f", file], check=True)
    return file


class Host:
    """An sshd that lets this user in with one key. As root it gets a network namespace, else a port of 127.0.0.1."""

    _count = 0

    def __init__(self, folder: Path, options: tuple[str, ...] = ()) -> None:
        Host._count += 1
        folder.mkdir(parents=True)
        self.folder = folder
        self.user = getpass.getuser()
        self.key = keygen(folder / "user_key")
        self.namespace, self.address = self._namespace(), "127.0.0.1"
        if self.namespace:
            self.address = self._far
        self.port = 22022 if self.namespace else _free_port()
        self.known_hosts = folder / "known_hosts"
        self.change_host_key()
        self.trust()
        self.config = folder / "sshd_config"
        lines = (
            f"ListenAddress {self.address}:{self.port}",
            f"HostKey {folder / 'host_key'}",
            f"AuthorizedKeysFile {self.key}.pub",
            "PidFile none",
            "StrictModes no",  # the keys lie below /tmp
            "UsePAM no",
            "PermitRootLogin yes",
            *(options or ("PasswordAuthentication no",)),
            "KbdInteractiveAuthentication no",
        )
        self.config.write_text("\n".join(lines) + "\n")
        self.process: subprocess.Popen[bytes] | None = None

    def _namespace(self) -> str | None:
        """Make a network namespace with a cable to it; None where we may not."""
        if os.geteuid() != 0 or shutil.which("ip") is None:
            return None
        number = os.getpid() % 16000 * 4 + Host._count % 4  # a /30 of 10.0.0.0/8 for each
        near, self._far = (f"10.{200 + number // 16384}.{number // 64 % 256}.{number % 64 * 4 + i}" for i in (1, 2))
        name = f"st{os.getpid()}x{Host._count}"
        self._cable = f"{name}h"[-15:]
        commands = (
            f"netns add {name}",
            f"link add {self._cable} type veth peer name far netns {name}",
            f"addr add {near}/30 dev {self._cable}",
            f"link set {self._cable} up",
            f"-n {name} addr add {self._far}/30 dev far",
            f"-n {name} link set far up",
            f"-n {name} link set lo up",
        )
        for command in commands:
            if subprocess.run(["ip", *command.split()], stderr=subprocess.DEVNULL).returncode:
                self._remove(name)
                return None
        return name

    def _remove(self, name: str) -> None:
        for command in (f"link delete {self._cable}", f"netns delete {name}"):
            subprocess.run(["ip", *command.split()], stderr=subprocess.DEVNULL)

    def change_host_key(self) -> None:
        """Give the host another key, as another machine at its address would have."""
        for file in self.folder.glob("host_key*"):
            file.unlink()
        keygen(self.folder / "host_key")

    def trust(self) -> None:
        """Write the host's key into its known_hosts file."""
        algorithm, key, *_ = (self.folder / "host_key.pub").read_text().split()
        self.known_hosts.write_text(f"[{self.address}]:{self.port} {algorithm} {key}\n")

    def start(self) -> Host:
        """Start the sshd and wait until it answers."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        inside = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([*inside, SSHD, "-D", "-e", "-f", self.config], stderr=log)
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection((self.address, self.port), timeout=5):
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"sshd did not start: {(self.folder / 'log').read_text()}")

    def processes(self) -> list[psutil.Process]:
        """Return the sshd and all that was started through it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            me = psutil.Process(self.process.pid)
            return [me, *me.children(recursive=True)]
        return []

    def kill(self) -> None:
        """Lose the host: its sshd and everything that was started through it, at once."""
        processes = self.processes()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self.process is not None:
            self.process.wait()

    def cut(self) -> None:
        """Pull the cable: everything over there lives on, and no packet comes through."""
        subprocess.run(["ip", "link", "set", self._cable, "down"], check=True)

    def close(self) -> None:
        """Kill what runs and remove the namespace."""
        self.kill()
        if self.namespace:
            self._remove(self.namespace)

    def machine(self, **changes: object) -> dict[str, object]:
        """Return the host as `engine.machines` has it."""
        own = {"host": self.address, "user": self.user, "port": self.port, "key": str(self.key)}
        return {**own, "python": sys.executable, **changes}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def starting(folder: Path) -> Iterator[Callable[..., list[Host]]]:
    """Give a function that starts so many hosts and lists their keys in the file `known_hosts` of the folder."""
    started: list[Host] = []

    def start(count: int, options: tuple[str, ...] = ()) -> list[Host]:
        new = [Host(folder / str(len(started) + i), options) for i in range(count)]
        started.extend(new)
        for host in new:
            host.start()
        (folder / "known_hosts").write_text("".join(host.known_hosts.read_text() for host in started))
        return new

    try:
        yield start
    finally:
        for host in started:
            host.close()
