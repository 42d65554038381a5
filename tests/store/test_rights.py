"""Who may come near a store."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.errors import StoreError
from builder.store.mounts import hold
from builder.store.store import Store, remove_tree
from tests.support.builds import BUSYBOX, Cli, busybox_context, needs_sandbox

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="making another user's files needs root")


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


@needs_root
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


# --- root in the store of another user


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """The store of another user, in which nobody works."""
    root = tmp_path / "store"
    with_all = Store(str(root))
    with_all.database.add_memo("kind", "key", b"x")
    with_all.close()
    for path in (root, *root.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    return root


@needs_root
def test_root_may_use_the_store_of_another_user(theirs: Path) -> None:
    (theirs / "tmp/left").touch()
    store = Store(str(theirs))
    with store.lease():
        assert store.database.memo("kind", "key") == b"x"
    store.close()
    assert os.listdir(theirs / "tmp") == []
    Store(str(theirs)).close()  # with what root has made there


@needs_root
@pytest.mark.parametrize(
    "name",
    ["tmp", "cache.db", "reserve", "locks", "mounts", "leases", "leases/gate", "blobs", "blobs/sha256", "failed"],
)
def test_root_follows_no_link_in_the_store_of_another_user(theirs: Path, tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    part = theirs / name
    if part.is_dir():
        remove_tree(str(part))
    part.unlink(missing_ok=True)
    part.parent.mkdir(exist_ok=True)
    part.symlink_to(precious / "file" if name in ("cache.db", "reserve", "locks", "leases/gate") else precious)
    with pytest.raises(StoreError, match="is a link") as caught:
        Store(str(theirs))
    assert caught.value.place == str(part)
    assert [path.name for path in precious.iterdir()] == ["file"]
    assert (precious / "file").read_text() == "kept"


@needs_root
def test_parts_that_are_a_third_users(theirs: Path) -> None:
    os.chown(theirs / "tmp", 4321, 4321)
    with pytest.raises(StoreError, match="belongs to user 4321"):
        Store(str(theirs))


@needs_root
def test_a_file_with_two_names_in_the_store_of_another_user(theirs: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    os.link(tmp_path / "precious", theirs / "reserve")
    with pytest.raises(StoreError, match="another name"):
        Store(str(theirs))


def test_a_link_in_a_store_that_others_may_write_to(tmp_path: Path) -> None:
    root, precious = tmp_path / "store", tmp_path / "precious"
    Store(str(root)).close()
    root.chmod(0o1777)
    precious.mkdir()
    (precious / "file").touch()
    (root / "tmp").rmdir()
    (root / "tmp").symlink_to(precious)
    with pytest.raises(StoreError, match="is a link"):
        Store(str(root))
    assert (precious / "file").exists()


def test_a_directory_that_is_no_store_loses_nothing(tmp_path: Path) -> None:
    """A user's home, or `/`, with a directory `tmp` of its own."""
    for name in ("tmp", "letters"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    for mode in (0o755, 0o700):
        tmp_path.chmod(mode)
        with pytest.raises(StoreError, match="no store: beside 'tmp' it holds 'letters'") as caught:
            Store(str(tmp_path))
        assert "--root" in (caught.value.remedy or "")
    assert (tmp_path / "tmp/file").exists()
    assert sorted(os.listdir(tmp_path)) == ["letters", "tmp"]


def test_a_store_that_was_begun_is_made(tmp_path: Path) -> None:
    for name in ("tmp", "blobs", "0123456789abcdef"):
        (tmp_path / name).mkdir()
    Store(str(tmp_path)).close()
    assert (tmp_path / "oci-layout").exists()


def test_a_cache_mount_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "link").symlink_to("precious")
    (tmp_path / "mount").mkdir()
    (tmp_path / "mount/data").symlink_to("../precious")
    for name in ("link", "mount"):
        with pytest.raises(StoreError, match="is a link"):
            hold(str(tmp_path / name), fcntl.LOCK_EX)
    assert os.listdir(tmp_path / "precious") == []
