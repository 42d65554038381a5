"""Snapshots by name: complete or absent, whoever was killed, and whatever the machine did."""

from __future__ import annotations

import functools
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.filesystem import syscalls
from builder.filesystem.snapshots import Snapshots
from tests.filesystem.conftest import leftovers
from tests.support.archives import diff_id

Archive = Callable[..., bytes]
FILE = {"data": b"x"}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and attributes need root")


def test_which_of_some_layers_are_there(snapshots: Snapshots, archive: Archive) -> None:
    archives = [archive((name, FILE)) for name in "abc"]
    for raw in archives[:2]:
        snapshots.unpack(diff_id(raw), functools.partial(io.BytesIO, raw))
    assert snapshots.entries.diff_ids() == sorted(map(diff_id, archives[:2]))
    assert snapshots.entries.diff_ids([diff_id(raw) for raw in archives[1:]]) == [diff_id(archives[1])]
    assert snapshots.entries.diff_ids([]) == []


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
    command = [sys.executable, "-c", KILLED, os.path.dirname(snapshots.entries.directory), diff_id(raw)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for clean in (snapshots.entries.sweep, lambda: snapshots.unpack(diff_id(raw), lambda: io.BytesIO(raw))):
        assert subprocess.run(command, input=raw, env=environment, check=False).returncode == -9
        assert leftovers(snapshots) == [f"tmp-{diff_id(raw)[7:]}"]
        assert snapshots.path(diff_id(raw)) is None
        clean()
        assert leftovers(snapshots) == []
    assert len(os.listdir(snapshots.path(diff_id(raw)) or "")) == 200


def test_what_is_being_made_is_not_swept(snapshots: Snapshots, archive: Archive) -> None:
    raw = archive(("f", FILE))

    def open_tar() -> io.BytesIO:
        snapshots.entries.sweep()
        (name,) = leftovers(snapshots)
        assert not snapshots.entries.sweep_one(name)
        return io.BytesIO(raw)

    assert os.listdir(snapshots.unpack(diff_id(raw), open_tar)) == ["f"]
    assert not snapshots.entries.sweep_one(diff_id(raw)[7:])
    assert not snapshots.entries.sweep_one("lock")
    (Path(snapshots.entries.directory) / "gone-1/d").mkdir(parents=True)
    assert snapshots.entries.sweep_one("gone-1")
    assert not leftovers(snapshots)


def test_after_a_restart_only_settled_snapshots_are_believed(tmp_path: Path, archive: Archive) -> None:
    first, second = archive(("a", FILE)), archive(("b", FILE))
    snapshots = Snapshots(tmp_path)
    snapshots.unpack(diff_id(first), lambda: io.BytesIO(first))
    assert snapshots.entries.settle()
    assert not snapshots.entries.settle()
    snapshots.unpack(diff_id(second), lambda: io.BytesIO(second))
    later = Snapshots(tmp_path)
    later.entries._boot = "another boot"
    assert later.path(diff_id(first)) is not None
    assert later.path(diff_id(second)) is None
    assert not later.entries.settle()  # what an earlier boot left is not made better by flushing it
    assert later.entries.diff_ids() == [diff_id(first)]
    assert Path(later.unpack(diff_id(second), lambda: io.BytesIO(second)), "b").exists()
    assert leftovers(snapshots) == []


def test_settling_waits_for_its_time(snapshots: Snapshots, archive: Archive) -> None:
    """One that has waited long enough has all of them flushed."""
    first, second = (archive((name, FILE)) for name in "ab")
    snapshots.unpack(diff_id(first), lambda: io.BytesIO(first))
    assert not snapshots.entries.settle(100)
    directory = Path(snapshots.entries.directory)
    mark = directory / diff_id(first)[7:] / "boot"
    for made in (mark, directory / "lock"):
        os.utime(made, (mark.stat().st_mtime - 200,) * 2)
    snapshots.unpack(diff_id(second), lambda: io.BytesIO(second))
    assert snapshots.entries.settle(100)
    assert list(directory.glob("*/boot")) == []


def test_nobody_looks_for_what_cannot_wait_long_enough(
    snapshots: Snapshots, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each build asks, and there may be thousands of them."""
    looked = []
    listed = snapshots.entries._names

    def names() -> list[str]:
        looked.append(1)
        return listed()

    monkeypatch.setattr(snapshots.entries, "_names", names)
    assert not snapshots.entries.settle(100)  # there is nothing at all
    raw = archive(("a", FILE))
    snapshots.unpack(diff_id(raw), lambda: io.BytesIO(raw))
    directory = Path(snapshots.entries.directory)
    mark, lock = directory / diff_id(raw)[7:] / "boot", directory / "lock"
    now = mark.stat().st_mtime
    looked.clear()
    assert not snapshots.entries.settle(100)
    assert not looked
    os.utime(lock, (now - 200,) * 2)
    os.utime(mark, (now - 50,) * 2)
    assert not snapshots.entries.settle(100)
    assert not snapshots.entries.settle(100)
    assert len(looked) == 1  # until that one has waited long enough
    os.utime(mark, (now - 120,) * 2)
    os.utime(lock, (now - 120,) * 2)
    assert snapshots.entries.settle(100)
    looked.clear()
    assert not snapshots.entries.settle(100)
    assert not looked


@pytest.mark.parametrize("replaced", [True, False])
def test_what_is_replaced_while_it_is_flushed_is_not_settled(
    snapshots: Snapshots, archive: Archive, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    raw = archive(("a", FILE))
    snapshots.unpack(diff_id(raw), lambda: io.BytesIO(raw))

    def flush(descriptor: int) -> None:
        assert os.path.samestat(os.fstat(descriptor), os.stat(snapshots.entries.directory))
        if replaced:  # as a collection does; the file of what went is still there, so the inode is another
            kept = snapshots.entries.set_aside([])
            snapshots.unpack(diff_id(raw), lambda: io.BytesIO(raw))
            for path in kept:
                syscalls.remove_tree(path)

    monkeypatch.setattr("builder.filesystem.snapshot_entries.syncfs", flush)
    assert snapshots.entries.settle()
    assert len(list(Path(snapshots.entries.directory).glob("*/boot"))) == replaced
