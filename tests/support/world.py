"""A machine for commands that are to run as they are written: with names, ports and paths that this one cannot give.

A process holds a mount and a network namespace: nothing but loopback, where names stand for it and all ports are free;
this machine's files, but a /tmp, a home directory and an /etc/hosts of its own. Commands are run there by nsenter(1).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

PROJECT = Path(__file__).parents[2]
REGISTRY = "registry.example.com"
NAMES = (REGISTRY, "registry.example")
USER, PASSWORD = "ci", "a-password-of-some-length"
"""Who may use the registry at REGISTRY; that at localhost:5000 is everybody's."""

_OWN = ("tmp", "root", "src", "store")  # directories that are made for it
_UP = 0x8914, 0x41  # SIOCSIFFLAGS, IFF_UP | IFF_RUNNING


class World:
    """The machine. `directory` is there as it is here, and gets `bin/builder`."""

    def __init__(self, directory: Path, certificates: Path) -> None:
        self.directory = directory
        self.environ = {
            "PATH": f"{directory}/bin:{os.environ['PATH']}",
            "HOME": "/root",
            "PYTHONPATH": str(PROJECT),
            "LANG": "C.UTF-8",
            "BUILDER_CONFIG": str(directory / "builder.toml"),
        }
        if "LD_LIBRARY_PATH" in os.environ:
            self.environ["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        (directory / "builder.toml").write_text(
            "".join(f'[registry."{name}"]\nca = ["{certificates}/ca.crt"]\n' for name in NAMES)
        )
        (directory / "bin").mkdir()
        program = directory / "bin/builder"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m builder "$@"\n')
        program.chmod(0o755)
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "--", sys.executable, "-m", __name__, directory, certificates],
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._said: IO[bytes] = self._holder.stdout  # type: ignore[assignment]  # it is a pipe
        assert self._said.readline() == b"ready\n"

    def arguments(self, line: str, directory: Path | str) -> list[str]:
        """The arguments that run a line of shell in a directory there."""
        script = 'cd "$1" && eval "$2"'
        enter = [str(shutil.which("nsenter")), "--target", str(self._holder.pid), "--mount", "--net", "--root", "--"]
        return [*enter, "bash", "-c", script, "bash", str(directory), line]

    def run(
        self, line: str, directory: Path | str = "/", environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.arguments(line, directory),
            env={**self.environ, **(environ or {})},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )

    def close(self) -> None:
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._said.close()
        self._holder.wait(20)


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def _make_root(root: Path, shared: Sequence[Path]) -> None:
    """Put together the files of the machine at `root`, and go there."""
    root.mkdir()
    _mount("-t", "tmpfs", "-o", "mode=755", "world", root)
    for entry in os.scandir("/"):
        if entry.is_symlink():
            (root / entry.name).symlink_to(os.readlink(entry.path))
        elif entry.is_dir() and entry.name not in _OWN:
            (root / entry.name).mkdir()
            _mount("--rbind", entry.path, root / entry.name)
    for name in _OWN:
        (root / name).mkdir(mode=0o1777 if name == "tmp" else 0o755)
    for path in shared:
        hidden = path.parts[1] in _OWN
        if hidden:
            (root / path.relative_to("/")).mkdir(parents=True, exist_ok=True)
            _mount("--rbind", path, root / path.relative_to("/"))
    hosts = root / "tmp/hosts"
    hosts.write_text(f"127.0.0.1 localhost {' '.join(NAMES)}\n")
    _mount("--bind", hosts, root / "etc/hosts")
    os.chroot(root)
    os.chdir("/")


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _UP[0], struct.pack("16sh", b"lo", _UP[1]))


def _hold(directory: Path, certificates: Path) -> None:
    import ssl

    from tests.support.registry import FakeRegistry

    _raise_loopback()
    interpreter = [Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), Path(sys.executable).parents[1]]
    _make_root(directory / "world", [directory, certificates, PROJECT, *interpreter])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    private = FakeRegistry(port=443, tls=tls, auth="basic", users={USER: PASSWORD})
    with FakeRegistry(port=5000), private:
        private.add_image("app", "1")
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    _hold(Path(sys.argv[1]), Path(sys.argv[2]))
