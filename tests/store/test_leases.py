"""Leases of several users: root works with the store of another one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from builder.store.leases import Lease
from tests.support.builds import PROJECT

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="leaving files of root needs root")

NOBODY = 65534
ASKING = {
    "held": "print(*leases.held('leases'))",
    "frozen": "with leases.frozen('leases') as pins: print(*pins)",
    "pinned": "leases.Lease('leases').pin('other'); print(*leases.held('leases') - {'other'})",
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where leases are in the store of a user, who began nothing yet."""
    made = tmp_path / "leases"
    made.mkdir(mode=0o700)
    os.chown(made, NOBODY, NOBODY)
    return made


def ask(directory: Path, question: str) -> str:
    """What the store's user is told, or the error."""
    script = (
        "import encodings.ascii, os; from builder.errors import StoreError; from builder.store import leases\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"  # who may not load modules here
        f"try:\n    {question}\nexcept StoreError as error: print(error, error.remedy)"
    )
    environ = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=directory.parent, env=environ, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout.strip()


@needs_root
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
@pytest.mark.parametrize("question", ASKING.values(), ids=ASKING)
def test_what_root_uses_is_seen_by_the_user(directory: Path, question: str, mask: int) -> None:
    directory.parent.chmod(0o755)
    before = os.umask(mask)
    try:
        lease = Lease(str(directory))
    finally:
        os.umask(before)
    lease.pin("sha256:1")
    assert ask(directory, question) == "sha256:1"
    lease.release()


@needs_root
@pytest.mark.parametrize("question", list(ASKING.values())[:2], ids=list(ASKING)[:2])
def test_a_lease_that_may_not_be_read_is_named(directory: Path, question: str) -> None:
    directory.parent.chmod(0o755)
    (directory / "1.abc").touch(mode=0o600)
    told = ask(directory, question)
    assert told.startswith("leases/1.abc: a lease cannot be read: Permission denied")
    assert "remove" in told


@needs_root
@pytest.mark.parametrize("question", ASKING.values(), ids=ASKING)
def test_leases_that_may_not_be_read_are_named(directory: Path, question: str) -> None:
    directory.parent.chmod(0o755)
    os.chown(directory, 0, 0)
    (directory / "1.abc").touch(mode=0o600)
    told = ask(directory, question)
    assert told.startswith("leases: ")
    assert "Permission denied" in told
    assert "owner" in told
