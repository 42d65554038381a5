"""The snapshot cache: complete or absent, whoever asks, and whoever was killed."""

from __future__ import annotations

import functools
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.errors import LayerError, StoreError
from builder.filesystem import syscalls
from builder.filesystem.layered import LayeredTree
from builder.filesystem.snapshots import Snapshots
from tests.support.archives import diff_id

Archive = Callable[..., bytes]
FILE = {"data": b"x"}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and attributes need root")


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path)


def leftovers(snapshots: Snapshots) -> list[str]:
    return [name for name in os.listdir(snapshots.directory) if name.startswith(("tmp-", "gone-"))]


@pytest.mark.parametrize("large", [False, True])
def test_the_mode_of_the_root_whatever_the_umask(snapshots: Snapshots, archive: Archive, large: bool) -> None:
    raw = archive(("f", FILE))
    before = os.umask(0o077)
    try:
        path = snapshots.unpack(diff_id(raw), lambda: io.BytesIO(raw), large=large)
    finally:
        os.umask(before)
    assert os.stat(path).st_mode & 0o7777 == 0o755


def test_which_of_some_layers_are_there(snapshots: Snapshots, archive: Archive) -> None:
    archives = [archive((name, FILE)) for name in "abc"]
    for raw in archives[:2]:
        snapshots.unpack(diff_id(raw), functools.partial(io.BytesIO, raw))
    assert snapshots.diff_ids() == sorted(map(diff_id, archives[:2]))
    assert snapshots.diff_ids([diff_id(raw) for raw in archives[1:]]) == [diff_id(archives[1])]
    assert snapshots.diff_ids([]) == []


def test_unpack_once(snapshots: Snapshots, archive: Archive) -> None:
    raw = archive(("d", {}), ("d/f", FILE))
    assert snapshots.path(diff_id(raw)) is None
    path = snapshots.unpack(diff_id(raw), lambda: io.BytesIO(raw))
    assert path == os.path.join(snapshots.directory, diff_id(raw)[7:], "fs")
    assert Path(path, "d/f").read_bytes() == b"x"
    assert snapshots.path(diff_id(raw)) == path
    assert snapshots.unpack(diff_id(raw), lambda: pytest.fail("unpacked twice")) == path
    assert snapshots.diff_ids() == [diff_id(raw)]
    snapshots.remove(diff_id(raw))
    snapshots.remove(diff_id(raw))
    assert snapshots.path(diff_id(raw)) is None
    assert leftovers(snapshots) == []


def test_the_digest_is_verified(snapshots: Snapshots, archive: Archive) -> None:
    raw = archive(("f", FILE))
    wrong = diff_id(b"something else")
    with pytest.raises(LayerError, match=diff_id(raw)):
        snapshots.unpack(wrong, lambda: io.BytesIO(raw))
    with pytest.raises(LayerError, match="truncated"):
        snapshots.unpack(diff_id(raw[:700]), lambda: io.BytesIO(raw[:700]))
    assert snapshots.path(wrong) is None
    assert leftovers(snapshots) == []
    with pytest.raises(StoreError, match="no diff ID"):
        snapshots.path("sha256:../../etc")


def test_adopt(snapshots: Snapshots, archive: Archive, tmp_path: Path) -> None:
    for _ in range(2):
        (tmp_path / "upper").mkdir()
        (tmp_path / "upper/f").write_text("x")
        path = snapshots.adopt(diff_id(b"1"), tmp_path / "upper")
        assert path == snapshots.path(diff_id(b"1"))
        assert not (tmp_path / "upper").exists()
        assert os.listdir(path) == ["f"]
    with pytest.raises(StoreError, match="cannot become a snapshot"):
        snapshots.adopt(diff_id(b"2"), tmp_path / "missing")
    assert leftovers(snapshots) == []


def test_a_layer_that_is_not_complete_in_itself(snapshots: Snapshots, archive: Archive) -> None:
    bases = []
    for mode in (0o700, 0o1777):
        raw = archive(("d", {"mode": mode}))
        bases.append(snapshots.unpack(diff_id(raw), lambda raw=raw: io.BytesIO(raw)))  # type: ignore[misc]
    raw = archive(("d/f", FILE))
    opened = []

    def open_tar() -> io.BytesIO:
        opened.append(1)
        return io.BytesIO(raw)

    paths = [snapshots.unpack(diff_id(raw), open_tar, below) for below in ([], bases[:1], bases[1:], bases[:1])]
    assert len(opened) == 3
    assert [Path(path, "d").stat().st_mode & 0o7777 for path in paths] == [0o755, 0o700, 0o1777, 0o700]
    assert [snapshots.path(diff_id(raw), below) for below in ([], bases[:1], bases[1:], bases[:1])] == paths
    assert snapshots.path(diff_id(raw), bases) is None
    snapshots.remove(diff_id(raw))
    assert snapshots.path(diff_id(raw), bases[:1]) is None
    assert len(snapshots.diff_ids()) == 2


def test_a_complete_layer_serves_over_any_base(snapshots: Snapshots, archive: Archive) -> None:
    base, raw = archive(("d", {"mode": 0o700})), archive(("d", {}), ("d/f", FILE))
    below = [snapshots.unpack(diff_id(base), lambda: io.BytesIO(base))]
    path = snapshots.unpack(diff_id(raw), lambda: io.BytesIO(raw), below)
    assert snapshots.path(diff_id(raw)) == path
    with LayeredTree([path, *below]) as tree:
        assert [name for name, _ in tree.scan("d")] == ["f"]


def test_many_threads_unpack_once(snapshots: Snapshots, archive: Archive) -> None:
    raw = archive(*((str(number), FILE) for number in range(200)))
    opened: list[int] = []
    paths: list[str] = []

    def open_tar() -> io.BytesIO:
        opened.append(1)
        return io.BytesIO(raw)

    def work() -> None:
        paths.append(Snapshots(os.path.dirname(snapshots.directory)).unpack(diff_id(raw), open_tar))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(opened), len(paths), len(set(paths))) == (1, 8, 1)


KILLED = """
import os, signal, sys
from pathlib import Path
from builder.filesystem.snapshots import Snapshots
raw = sys.stdin.buffer.read()
class Stream:
    position = 0
    def read(self, size):
        if self.position > len(raw) // 2:
            os.kill(os.getpid(), signal.SIGKILL)
        self.position += 4096
        return raw[self.position - 4096 : self.position]
Snapshots(Path(sys.argv[1])).unpack(sys.argv[2], Stream)
"""


def test_a_killed_process_leaves_what_the_next_removes(snapshots: Snapshots, archive: Archive) -> None:
    raw = archive(*((str(number), FILE) for number in range(200)))
    command = [sys.executable, "-c", KILLED, os.path.dirname(snapshots.directory), diff_id(raw)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for clean in (snapshots.sweep, lambda: snapshots.unpack(diff_id(raw), lambda: io.BytesIO(raw))):
        assert subprocess.run(command, input=raw, env=environment, check=False).returncode == -9
        assert leftovers(snapshots) == [f"tmp-{diff_id(raw)[7:]}"]
        assert snapshots.path(diff_id(raw)) is None
        clean()
        assert leftovers(snapshots) == []
    assert len(os.listdir(snapshots.path(diff_id(raw)) or "")) == 200


def test_what_is_being_made_is_not_swept(snapshots: Snapshots, archive: Archive) -> None:
    raw = archive(("f", FILE))

    def open_tar() -> io.BytesIO:
        snapshots.sweep()
        (name,) = leftovers(snapshots)
        assert not snapshots.sweep_one(name)
        return io.BytesIO(raw)

    assert os.listdir(snapshots.unpack(diff_id(raw), open_tar)) == ["f"]
    assert not snapshots.sweep_one(diff_id(raw)[7:])
    assert not snapshots.sweep_one("lock")
    (Path(snapshots.directory) / "gone-1/d").mkdir(parents=True)
    assert snapshots.sweep_one("gone-1")
    assert not leftovers(snapshots)


@pytest.mark.parametrize("call", ["unlink", "rmdir", "open", "scandir"])
def test_two_remove_a_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Whatever one is about to do next, another has done it."""
    top = tmp_path / "tree"
    real = getattr(os, call)
    left = 0

    def race(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            monkeypatch.undo()
            syscalls.remove_tree(str(top))
        return real(*arguments, **named)

    for turn in range(1, 12):
        for path in ("a/b/c", "d/e"):
            (top / path).mkdir(parents=True)
            (top / path / "f").touch()
        left = turn
        monkeypatch.setattr(os, call, race)
        syscalls.remove_tree(str(top))
        monkeypatch.undo()
        assert not top.exists()


def test_after_a_restart_only_settled_snapshots_are_believed(tmp_path: Path, archive: Archive) -> None:
    first, second = archive(("a", FILE)), archive(("b", FILE))
    snapshots = Snapshots(tmp_path)
    snapshots.unpack(diff_id(first), lambda: io.BytesIO(first))
    assert snapshots.settle()
    assert not snapshots.settle()
    snapshots.unpack(diff_id(second), lambda: io.BytesIO(second))
    later = Snapshots(tmp_path)
    later._boot = "another boot"
    assert later.path(diff_id(first)) is not None
    assert later.path(diff_id(second)) is None
    assert not later.settle()  # what an earlier boot left is not made better by flushing it
    assert later.diff_ids() == [diff_id(first)]
    assert Path(later.unpack(diff_id(second), lambda: io.BytesIO(second)), "b").exists()
    assert leftovers(snapshots) == []


def test_settling_waits_for_its_time(snapshots: Snapshots, archive: Archive) -> None:
    """One that has waited long enough has all of them flushed."""
    first, second = (archive((name, FILE)) for name in "ab")
    snapshots.unpack(diff_id(first), lambda: io.BytesIO(first))
    assert not snapshots.settle(100)
    mark = Path(snapshots.directory) / diff_id(first)[7:] / "boot"
    os.utime(mark, (mark.stat().st_mtime - 200,) * 2)
    snapshots.unpack(diff_id(second), lambda: io.BytesIO(second))
    assert snapshots.settle(100)
    assert list(Path(snapshots.directory).glob("*/boot")) == []


@pytest.mark.parametrize("replaced", [True, False])
def test_what_is_replaced_while_it_is_flushed_is_not_settled(
    snapshots: Snapshots, archive: Archive, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    raw = archive(("a", FILE))
    snapshots.unpack(diff_id(raw), lambda: io.BytesIO(raw))

    def flush(descriptor: int) -> None:
        assert os.path.samestat(os.fstat(descriptor), os.stat(snapshots.directory))
        if replaced:
            kept = snapshots.set_aside([])  # as a collection does; its file is still there, so the inode is another
            snapshots.unpack(diff_id(raw), lambda: io.BytesIO(raw))
            for path in kept:
                syscalls.remove_tree(path)

    monkeypatch.setattr("builder.filesystem.snapshots.syncfs", flush)
    assert snapshots.settle()
    assert len(list(Path(snapshots.directory).glob("*/boot"))) == replaced


@pytest.mark.parametrize("name", ["file", "link", "tree", "missing"])
def test_remove_tree(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/f").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("outside")
    for number in range(20):
        (tmp_path / f"tree/{number}/sub").mkdir(parents=True)
        (tmp_path / f"tree/{number}/sub/link").symlink_to(tmp_path / "outside")
    directory = tmp_path / "tree"
    descriptor = os.open(directory, os.O_RDONLY)
    for _ in range(3000):  # deeper than any path may be long
        os.mkdir("deep", dir_fd=descriptor)
        below = os.open("deep", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    syscalls.remove_tree(str(tmp_path / name))
    assert not os.path.lexists(tmp_path / name)
    syscalls.remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path / "outside") == ["f"]
