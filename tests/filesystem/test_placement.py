"""Trees lie apart from each other on the disk, where the file system can be told to."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.filesystem import placement

GET_FLAGS, SET_FLAGS, TOP_OF_TREES = 0x80086601, 0x40086602, 0x20000


def flags(directory: Path) -> int:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        found: int = struct.unpack("i", fcntl.ioctl(descriptor, GET_FLAGS, bytes(4)))[0]
        return found
    except OSError:
        pytest.skip("the file system has no attributes of this kind")
    finally:
        os.close(descriptor)


def set_flags(directory: Path, wanted: int) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, SET_FLAGS, struct.pack("i", wanted))
    finally:
        os.close(descriptor)


def test_the_mode_is_as_asked_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        placement.make_apart(f"{tmp_path}/tree", 0o755)
    finally:
        os.umask(before)
    assert os.listdir(tmp_path) == ["tree"]
    assert stat.S_IMODE((tmp_path / "tree").stat().st_mode) == 0o755


@pytest.mark.parametrize("known", [0, TOP_OF_TREES])
def test_the_parent_spreads_only_what_is_made_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: int
) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    plain = flags(parent)
    set_flags(parent, plain | TOP_OF_TREES)
    if not flags(parent) & TOP_OF_TREES:
        pytest.skip("the file system does not spread directories")
    before = plain | known
    set_flags(parent, before)
    meanwhile: list[int] = []
    mkdir = os.mkdir

    def noting(path: str, mode: int) -> None:
        meanwhile.append(flags(parent))
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", noting)
    placement.make_apart(f"{parent}/tree", 0o755)
    assert {now & TOP_OF_TREES for now in meanwhile} == {TOP_OF_TREES}
    assert flags(parent) == before
    assert not flags(parent / "tree") & TOP_OF_TREES


def test_each_tree_is_made_under_a_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The place follows from the name: the tree of one layer would come back to where it was removed."""
    for parent in ("a", "b"):
        (tmp_path / parent).mkdir()
    made: list[str] = []
    mkdir = os.mkdir

    def noting(path: str, mode: int) -> None:
        made.append(path)
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", noting)
    monkeypatch.setattr(placement, "_QUICK", 0)
    for parent in ("a", "b"):
        placement.make_apart(f"{tmp_path}/{parent}/fs", 0o755)
        assert (tmp_path / parent / "fs").is_dir()
    names = [path.rpartition("/")[2] for path in made]
    assert len(set(names)) == len(names) >= 2


@pytest.mark.parametrize(
    ("seconds", "drawn", "kept"),
    [
        pytest.param([1e-5], 1, 0, id="the first is good"),
        pytest.param([1e-3, 2e-3, 1e-5], 3, 2, id="until one is good"),
        pytest.param([8e-3, 7e-3, 3e-3, 5e-3, 4e-3, 6e-3, 9e-3, 8e-3], 8, 2, id="the best of several bad ones"),
    ],
)
def test_places_are_drawn_until_files_are_made_quickly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: list[float], drawn: int, kept: int
) -> None:
    inodes: list[int] = []

    def noting(directory: str) -> float:
        inodes.append(os.stat(directory).st_ino)
        return seconds[len(inodes) - 1]

    flags(tmp_path)
    monkeypatch.setattr(placement, "_seconds_for_a_file", noting)
    placement.make_apart(f"{tmp_path}/tree", 0o755)
    assert len(inodes) == drawn
    assert (tmp_path / "tree").stat().st_ino == inodes[kept]
    assert os.listdir(tmp_path) == ["tree"]


@pytest.mark.parametrize("failing", ["mkdir", "rename"])
def test_what_was_drawn_goes_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    calls: list[str] = []
    mkdir = os.mkdir

    def make(path: str, mode: int) -> None:
        calls.append(path)
        if failing == "mkdir" and len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        mkdir(path, mode)

    def rename(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    flags(tmp_path)
    monkeypatch.setattr(os, "mkdir", make)
    monkeypatch.setattr(placement, "_QUICK", 0)
    if failing == "rename":
        monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="No space left"):
        placement.make_apart(f"{tmp_path}/tree", 0o755)
    assert len(calls) >= 3
    assert os.listdir(tmp_path) == []


def test_looking_at_a_place_leaves_nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 <= placement._seconds_for_a_file(str(tmp_path)) < 1
    assert os.listdir(tmp_path) == []
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_CREAT)  # refused by every file system
    assert placement._seconds_for_a_file(str(tmp_path)) == 0


@pytest.mark.parametrize("number", [errno.ENOTTY, errno.EOPNOTSUPP, errno.EPERM])
def test_a_file_system_that_cannot_be_told_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    placement.make_apart(f"{tmp_path}/tree", 0o755)
    assert (tmp_path / "tree").is_dir()


class Making:
    """A tree that is made by a `Placement`, each thing of it as slow as `seconds` says."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.tree = directory / "tree"
        self.tree.mkdir()
        self.descriptor = os.open(self.tree, os.O_RDONLY)
        self.placement = placement.Placement(str(directory))
        self.seconds = 0.0
        self.now = 0.0
        self.drawn = 0
        self.finds = True
        monkeypatch.setattr(time, "perf_counter", self.clock)
        monkeypatch.setattr(placement, "make_apart", self.draw)

    def clock(self) -> float:
        self.now += self.seconds
        return self.now

    def draw(self, path: str, mode: int) -> bool:
        self.drawn += 1
        os.mkdir(path, mode)
        return self.finds

    def files(self, *names: str) -> None:
        for name in names:
            os.close(self.placement.create(name, self.descriptor))


@pytest.fixture
def making(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Making]:
    found = Making(tmp_path, monkeypatch)
    yield found
    found.placement.close()
    os.close(found.descriptor)
    assert os.listdir(tmp_path) == ["tree"]


def test_what_is_quick_stays(making: Making) -> None:
    making.seconds = 50e-6
    making.files(*"abcdefgh")
    assert making.drawn == 0


def test_what_is_slow_again_and_again_is_made_elsewhere(making: Making) -> None:
    making.seconds = 1e-3
    making.files(*"abc")
    making.seconds = 0  # it was something else
    making.files("d")
    making.seconds = 1e-3
    making.files(*"efg")
    assert making.drawn == 0
    making.files("h")
    assert making.drawn == 1
    making.placement.mkdir("directory", 0o700, making.descriptor)
    making.placement.symlink("a", "link", making.descriptor)
    making.files(*"ijklm")
    assert making.drawn == 1
    making.files("n")  # twice as many as the first time
    assert making.drawn == 2
    making.seconds = 0
    making.files("o")
    assert sorted(os.listdir(making.tree)) == sorted([*"abcdefghijklmno", "directory", "link"])
    assert os.readlink(making.tree / "link") == "a"
    assert (making.tree / "directory").is_dir()


@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
def test_what_is_there_is_not_replaced(making: Making, kind: str) -> None:
    making.seconds = 1e-3
    making.files(*"abcd")
    assert making.drawn == 1
    makers: dict[str, Callable[[str], None]] = {
        "file": making.files,
        "directory": lambda name: making.placement.mkdir(name, 0o700, making.descriptor),
        "symlink": lambda name: making.placement.symlink("elsewhere", name, making.descriptor),
    }
    make = makers[kind]
    make("new")
    for name in ("a", "new"):
        before = os.lstat(making.tree / name)
        with pytest.raises(FileExistsError):
            make(name)
        assert os.lstat(making.tree / name) == before
    make("newer")


def test_a_place_that_is_no_better_is_left_alone(making: Making) -> None:
    making.seconds = 1e-3
    making.finds = False
    making.files(*"abcdefghij")
    assert making.drawn == 1
    assert [os.listdir(path) for path in making.placement._places] == [[]]
    assert making.placement._place < 0


def test_without_another_place_all_goes_on(making: Making, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str, mode: int) -> bool:
        raise OSError(errno.ENOSPC, "full", path)

    monkeypatch.setattr(placement, "make_apart", fail)
    making.seconds = 1e-3
    making.files(*"abcdefghij")
    assert sorted(os.listdir(making.tree)) == [*"abcdefghij"]


def test_a_tree_that_is_to_stay_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "_SLOW", 0)
    monkeypatch.setattr(placement, "make_apart", None)
    made = placement.Placement("")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for number in range(20):
        os.close(made.create(str(number), descriptor))
    made.close()
    os.close(descriptor)
    assert len(os.listdir(tmp_path)) == 20
