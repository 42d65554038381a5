"""A Docker daemon of a test's own, from Debian's package docker.io."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def docker_daemon() -> Iterator[list[str]]:
    """The command of a client for a daemon that is started now and ended at the end; skips where it cannot run."""
    program = shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin")
    client = next((path for path in ("/usr/bin/docker", shutil.which("docker")) if path and os.path.exists(path)), None)
    if program is None or client is None:
        pytest.skip("needs dockerd and docker (Debian package docker.io)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as short:  # sockets have short names
        command = [client, "--host", f"unix://{short}/d.sock"]
        arguments = [
            *(program, "--iptables=false", "--ip6tables=false", "--bridge=none", "--host", f"unix://{short}/d.sock"),
            *("--data-root", f"{short}/data", "--exec-root", f"{short}/exec", "--pidfile", f"{short}/d.pid"),
            *("--storage-driver", "overlay2"),
        ]
        with open(f"{short}/log", "wb") as log:
            daemon = subprocess.Popen(arguments, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + 60
            while subprocess.run([*command, "version"], capture_output=True).returncode:
                if daemon.poll() is not None or time.monotonic() > deadline:
                    pytest.skip(f"dockerd does not start here: {Path(short, 'log').read_text()[-500:]}")
                time.sleep(0.1)
            yield command
        finally:
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(60)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
            for place in sorted(mounts_below(Path(short)), reverse=True):
                subprocess.run(["umount", "-l", place], capture_output=True)


def mounts_below(directory: Path) -> list[str]:
    """Where something is mounted below a directory."""
    with open("/proc/self/mounts") as file:
        return [line.split()[1] for line in file if line.split()[1].startswith(f"{directory}/")]
