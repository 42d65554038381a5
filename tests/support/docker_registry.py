"""Debian's docker-registry (the distribution project's), started by tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAM = shutil.which("docker-registry") or "/usr/bin/docker-registry"
needs_docker_registry = pytest.mark.skipif(
    not os.access(PROGRAM, os.X_OK), reason="docker-registry is not installed (Debian package docker-registry)"
)
# The password "p" of the user "u", in bcrypt as htpasswd -B writes it.
HTPASSWD = "u:$2y$05$abcdefghijklmnopqrstuuqwWMzKt5N8p.u2GX5MuH1t19BMWuLOW\n"


@contextmanager
def docker_registry(directory: Path, *, password: bool = False, certificates: Path | None = None) -> Iterator[str]:
    """A registry on a free port, which is given: for the user `u` with password `p` alone, or for everybody; by HTTPS
    with the certificates of `make_certificates`, or by HTTP."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    directory.mkdir(exist_ok=True)
    tls = f", tls: {{certificate: {certificates}/server.crt, key: {certificates}/server.key}}" if certificates else ""
    text = (
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {directory}/data}}}}\n"
        f"http: {{addr: '{host}'{tls}}}\n"
    )
    if password:
        (directory / "htpasswd").write_text(HTPASSWD)
        text += f"auth: {{htpasswd: {{realm: test, path: {directory}/htpasswd}}}}\n"
    (directory / "config.yml").write_text(text)
    process = subprocess.Popen(
        [PROGRAM, "serve", directory / "config.yml"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        name, _, port = host.partition(":")
        for _ in range(500):
            try:
                socket.create_connection((name, int(port)), 1).close()
                break
            except OSError:
                time.sleep(0.02)
        yield host
    finally:
        process.terminate()
        process.wait(10)
