"""Who may come near a store."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.store.store import Store
from tests.support.builds import BUSYBOX, Cli, busybox_context, needs_sandbox

NOBODY = 65534


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.fixture
def above() -> Iterator[Path]:
    """A directory that everybody may enter, which pytest's are not."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o755)
        yield Path(path)


@needs_sandbox
def test_a_program_in_a_cache_mount_serves_no_other_user(above: Path) -> None:
    run = "RUN --mount=type=cache,target=/c cp /bin/busybox /c/id && chmod 4755 /c/id\n"
    cli = Cli(above / "store")
    cli.build(busybox_context(above / "context", run))
    (program,) = cli.root.glob("mounts/*/data/id")
    assert mode(program) & 0o4001 == 0o4001
    tried = (
        f"{program} -u",
        f"ls {cli.root}",
        f"head -c 6 {cli.root}/cache.db",
        f": < {cli.root}/oci-layout && echo 1",
    )
    script = "\n".join(tried)
    command = [BUSYBOX, "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, user=NOBODY, group=NOBODY, extra_groups=[])
    assert done.stdout == b""


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_new_store_is_its_owners(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        Store(str(tmp_path / "share/builder/store")).close()
    finally:
        os.umask(before)
    assert [mode(tmp_path / name) for name in ("share", "share/builder", "share/builder/store")] == [0o700] * 3


def test_a_store_of_an_older_version_becomes_its_owners(tmp_path: Path) -> None:
    root = tmp_path / "store"
    with_all = Store(str(root))
    with_all.database.add_memo("kind", "key", b"x")
    with_all.close()
    for name in ("snapshots-user-0", "mounts", "lost+found"):
        (root / name).mkdir()
    root.chmod(0o755)
    Store(str(root)).close()
    assert mode(root) == 0o700


def test_an_empty_directory_becomes_its_owners(tmp_path: Path) -> None:
    tmp_path.chmod(0o775)
    Store(str(tmp_path)).close()
    assert mode(tmp_path) == 0o700


def test_a_directory_with_other_things_keeps_its_rights(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    tmp_path.chmod(0o755)
    for _ in range(2):
        Store(str(tmp_path)).close()
    assert mode(tmp_path) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="making another user's directory needs root")
def test_the_store_of_another_user_keeps_its_rights(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    os.chown(tmp_path, NOBODY, NOBODY)
    Store(str(tmp_path)).close()
    assert mode(tmp_path) == 0o750


@pytest.mark.parametrize("number", [errno.EPERM, errno.EROFS])
def test_a_file_system_without_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    root = tmp_path / "store"
    Store(str(root)).close()
    root.chmod(0o755)
    (root / "tmp/left").touch()

    def refuse(path: str, mode: int) -> None:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "chmod", refuse)
    Store(str(root)).close()
    assert mode(root) == 0o755
    assert os.listdir(root / "tmp") == []
