"""Commands in a root that holds nothing but busybox; skipped where no sandbox can be made."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.sandbox.client import STDERR, STDOUT, Sandbox
from builder.sandbox.command import Command
from tests.sandbox.outcome import PATH, Outcome, Run
from tests.support.builds import BUSYBOX, obstacle

APPLETS = (
    "sh cat chmod chown dd echo env find grep head hostname id kill ln ls mkdir mknod mount mv nc ping ps pwd "
    "readlink od rm rmdir sed seq sleep sort stat tail touch true false umount unshare wc nsenter chroot tr"
).split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = obstacle()
    for item in items:
        if reason and "sandbox/" in item.nodeid and "run" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layer with busybox, its applets, and /etc, /tmp, /proc, /sys and /dev, so that nothing need be made."""
    root = tmp_path_factory.mktemp("busybox")
    root.chmod(0o755)
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (root / name).mkdir()
    (root / "tmp").chmod(0o1777)
    if os.path.exists(BUSYBOX):
        shutil.copy(BUSYBOX, root / "bin/busybox")
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    os.utime(root / "etc", (1_000_000_000, 1_000_000_000))
    return root


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def overlay(tmp_path: Path) -> Callable[[], tuple[str, str]]:
    """Makes an upper and a work directory."""
    count = 0

    def make() -> tuple[str, str]:
        nonlocal count
        count += 1
        paths = tmp_path / f"upper{count}", tmp_path / f"work{count}"
        for path in paths:
            path.mkdir()
            path.chmod(0o755)
        return str(paths[0]), str(paths[1])

    return make


@pytest.fixture
def run(sandbox: Sandbox, busybox: Path, overlay: Callable[[], tuple[str, str]]) -> Run:
    """run("shell commands", **fields of Command): a string goes to sh -c, a tuple is the argument vector. `by` is the
    sandbox, `meanwhile` what it calls."""

    def run(arguments: str | tuple[str, ...], **fields: Any) -> Outcome:
        upper, work = overlay()
        fields = {"environment": (PATH,), "lowers": (str(busybox),), "upper": upper, "work": work, **fields}
        if isinstance(arguments, str):
            arguments = ("/bin/sh", "-c", arguments)
        output: dict[int, bytes] = {STDOUT: b"", STDERR: b""}

        def on_output(stream: int, data: bytes) -> None:
            output[stream] += data

        meanwhile = fields.pop("meanwhile", None)
        result = fields.pop("by", sandbox).run(Command(arguments, **fields), on_output, meanwhile)
        return Outcome(result, output[STDOUT].decode(), output[STDERR].decode(), Path(fields["upper"]))

    return run
