"""Snapshots that are images: directories to whoever uses them, whatever becomes of their files."""

from __future__ import annotations

import errno
import functools
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.errors import LayerError, StoreError
from builder.filesystem import erofs_mount
from builder.filesystem.erofs_mount import is_able
from builder.filesystem.layered import LayeredTree
from builder.filesystem.snapshot_entries import EROFS
from builder.filesystem.snapshots import Snapshots
from tests.support.archives import diff_id

Archive = Callable[..., bytes]
FILE = {"data": b"x"}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def open_snapshots(tmp_path: Path, mounts_erofs: None) -> Callable[[], Snapshots]:
    return functools.partial(Snapshots, tmp_path, erofs=True)


def unpack(snapshots: Snapshots, raw: bytes, below: list[str] | None = None) -> str:
    return snapshots.unpack(diff_id(raw), lambda: io.BytesIO(raw), below or [])


def names(snapshots: Snapshots) -> list[str]:
    top = Path(snapshots.entries.directory)
    return sorted(str(path.relative_to(top)) for path in top.glob("*/*"))


def test_a_large_layer_becomes_an_image(open_snapshots: Callable[[], Snapshots], archive: Archive) -> None:
    raw, small = archive(("d", {}), ("d/f", FILE)), archive(("s", FILE))
    snapshots = open_snapshots()
    path = unpack(snapshots, raw)
    beside = snapshots.unpack(diff_id(small), lambda: io.BytesIO(small), large=False)
    assert Path(path, "d/f").read_bytes() == b"x"
    assert os.listdir(beside) == ["s"]
    assert [name for name in names(snapshots) if not name.endswith("boot")] == sorted(
        (f"{diff_id(raw)[7:]}/{EROFS}", f"{diff_id(small)[7:]}/fs")
    )
    assert snapshots.unpack(diff_id(raw), lambda: pytest.fail("unpacked twice")) == path
    assert snapshots.path(diff_id(raw)) == path
    assert snapshots.entries.diff_ids() == sorted((diff_id(raw), diff_id(small)))
    other = open_snapshots()
    theirs = other.path(diff_id(raw))
    assert theirs is not None
    assert os.listdir(theirs) == ["d"]
    snapshots.close()
    assert Path(theirs, "d/f").read_bytes() == b"x"
    assert not os.path.exists(path)
    snapshots.entries.remove(diff_id(raw))
    assert Path(theirs, "d/f").read_bytes() == b"x"  # as long as it is used
    other.close()
    assert open_snapshots().path(diff_id(raw)) is None


def test_what_has_no_place_in_an_image_is_a_directory(
    open_snapshots: Callable[[], Snapshots], archive: Archive
) -> None:
    raw = archive(("a", FILE), ("a", {"data": b"2"}))
    opened = []

    def open_tar() -> io.BytesIO:
        opened.append(io.BytesIO(raw))
        return opened[-1]

    snapshots = open_snapshots()
    path = snapshots.unpack(diff_id(raw), open_tar)
    assert path == f"{snapshots.entries.directory}/{diff_id(raw)[7:]}/fs"
    assert Path(path, "a").read_bytes() == b"2"
    assert len(opened) == 2
    assert not [name for name in names(snapshots) if name.endswith(EROFS)]


def test_the_digest_is_verified(open_snapshots: Callable[[], Snapshots], archive: Archive) -> None:
    snapshots = open_snapshots()
    raw = archive(("f", FILE))
    with pytest.raises(LayerError, match=diff_id(raw)):
        snapshots.unpack(diff_id(b"something else"), lambda: io.BytesIO(raw))
    assert names(snapshots) == []


@pytest.mark.parametrize("images", [True, False])
def test_what_cannot_be_mounted_is_unpacked_again(
    open_snapshots: Callable[[], Snapshots], archive: Archive, monkeypatch: pytest.MonkeyPatch, images: bool
) -> None:
    """It is damaged, or was made by a process that could."""
    raw = archive(("f", FILE))
    first = open_snapshots()
    unpack(first, raw)
    first.close()
    if images:
        os.truncate(f"{first.entries.directory}/{diff_id(raw)[7:]}/{EROFS}", 0)
    else:
        monkeypatch.setattr(erofs_mount, "is_able", lambda directory: False)
    second = open_snapshots()
    assert second.path(diff_id(raw)) is None
    path = unpack(second, raw)
    assert Path(path, "f").read_bytes() == b"x"
    assert path.endswith("/fs") is not images


def test_a_stack_over_images_has_the_same_name_in_each_process(
    open_snapshots: Callable[[], Snapshots], archive: Archive, tmp_path: Path
) -> None:
    """A layer that leaves out a directory takes its mode from the image below; what links to files of it serves over
    that image alone."""
    below, raw, left = archive(("d", {"mode": 0o700})), archive(("d/f", FILE)), archive(("l", FILE))
    found = []
    for number in range(2):
        snapshots = open_snapshots()
        under = [unpack(snapshots, below)]
        found.append([snapshots.path(one, under) for one in (diff_id(raw), diff_id(left))])
        if not number:
            (tmp_path / "upper").mkdir()
            dependent = unpack(snapshots, raw, under)
            assert os.stat(f"{dependent}/d").st_mode & 0o7777 == 0o700
            found.append([dependent, snapshots.adopt(diff_id(left), tmp_path / "upper", under)])
            with LayeredTree([dependent, *under]) as tree:
                assert [name for name, _ in tree.scan("d")] == ["f"]
        snapshots.close()
    before, made, after = found
    assert before == [None, None]
    assert after == made


def test_what_a_killed_process_left_of_an_image(open_snapshots: Callable[[], Snapshots], archive: Archive) -> None:
    raw = archive(("f", FILE))
    snapshots = open_snapshots()
    temporary = Path(snapshots.entries.directory, f"tmp-{diff_id(raw)[7:]}")
    temporary.mkdir(parents=True)
    (temporary / EROFS).write_bytes(b"half")
    assert Path(unpack(snapshots, raw), "f").read_bytes() == b"x"
    assert not temporary.exists()


@pytest.mark.parametrize("kind", [b"erofs", b"overlay"])
def test_where_the_kernel_refuses(
    kind: bytes, open_snapshots: Callable[[], Snapshots], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may know no EROFS, mount none from files, or take no such mount as a layer."""
    call = erofs_mount._call

    def refuse(number: int, *arguments: object) -> int:
        if arguments[0] == kind:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return call(number, *arguments)

    monkeypatch.setattr(erofs_mount, "_call", refuse)
    assert not is_able(str(tmp_path))


def test_a_process_with_all_files_open(
    open_snapshots: Callable[[], Snapshots], archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image is not taken for damaged, and not made again."""
    raw = archive(("f", FILE))
    first = open_snapshots()
    unpack(first, raw)

    def fail(path: str) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    second = open_snapshots()
    assert second.takes_erofs
    monkeypatch.setattr(erofs_mount, "mount_erofs", fail)
    with pytest.raises(StoreError, match="cannot be mounted: Too many open files") as caught:
        second.path(diff_id(raw))
    assert caught.value.remedy is not None
    assert "ulimit" in caught.value.remedy


def test_a_place_that_is_none() -> None:
    assert not is_able("/nowhere")
