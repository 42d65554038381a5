"""TarWriter against two independent readers: Python's tarfile and GNU tar."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import LayerError
from builder.filesystem import kinds
from builder.filesystem.archive import clean, read_archive
from builder.filesystem.tar import TarWriter
from builder.filesystem.tree import FileInfo

TIME = 1_577_836_800 * 10**9
NAMES = st.binary(min_size=1, max_size=300).map(
    lambda raw: clean(raw.replace(b"\0", b"x").decode("utf-8", "surrogateescape"))
).filter(lambda path: path and max(len(os.fsencode(part)) for part in path.split("/")) < 255)  # fmt: skip


def written(*entries: tuple[str, FileInfo, dict[str, object]]) -> bytes:
    pieces: list[bytes] = []
    writer = TarWriter(pieces.append)
    for path, info, more in entries:
        writer.add(path, info, **more)  # type: ignore[arg-type]
    writer.close()
    return b"".join(pieces)


def members(raw: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(raw), errors="surrogateescape") as tar:
        return tar.getmembers()


def test_an_empty_archive_has_the_diff_id_that_everybody_has() -> None:
    assert written() == bytes(1024)


def test_every_kind_reads_back() -> None:
    raw = written(
        ("d", FileInfo(kinds.DIRECTORY, 0o1777, 5, 6, mtime_ns=TIME), {}),
        ("d/f", FileInfo(kinds.FILE, 0o4755, 1000, 50, 5, TIME + 999_999_999), {"content": b"hello"}),
        ("d/h", FileInfo(kinds.FILE, 0o4755, 1000, 50, 5, TIME), {"hardlink": "d/f"}),
        ("d/l", FileInfo(kinds.SYMLINK, 0o777, link="../x", mtime_ns=TIME), {}),
        ("c", FileInfo(kinds.CHARACTER, 0o600, device=(5, 1)), {}),
        ("b", FileInfo(kinds.BLOCK, 0o600, device=(259, 300)), {}),
        ("p", FileInfo(kinds.FIFO, 0o600), {}),
    )
    directory, file, hard, link, character, block, fifo = members(raw)
    assert (directory.isdir(), directory.mode, directory.uid, directory.gid) == (True, 0o1777, 5, 6)
    assert (file.mode, file.size, file.mtime, file.uname) == (0o4755, 5, TIME // 10**9, "")
    assert (hard.islnk(), hard.linkname, hard.size) == (True, "d/f", 0)
    assert (link.issym(), link.linkname) == (True, "../x")
    assert (character.ischr(), character.devmajor, character.devminor) == (True, 5, 1)
    assert (block.isblk(), block.devmajor, block.devminor) == (True, 259, 300)
    assert fifo.isfifo()
    assert b"d/\0" in raw[:512]


@pytest.mark.parametrize(
    ("path", "records"),
    [
        ("a" * 100, 0), ("a" * 101, 1), ("d" * 155 + "/" + "f" * 100, 0), ("d" * 156 + "/" + "f" * 100, 1),
        ("d" * 120 + "/" + "f" * 120, 1), ("ü", 1), ("\udcff", 0), ("\udcff" * 101, 1),
    ],
)  # fmt: skip
def test_long_and_odd_names(path: str, records: int) -> None:
    raw = written((path, FileInfo(kinds.FILE, 0o644, size=1), {"content": b"x"}))
    assert len(raw) == 1024 + 1024 + records * 1024
    assert [member.name for member in members(raw)] == [path]
    listed = subprocess.run(["tar", "-t", "--quoting-style=literal"], input=raw, capture_output=True, check=True)
    assert listed.stdout == os.fsencode(path) + b"\n"


@given(
    path=NAMES,
    target=NAMES,
    uid=st.integers(0, 2**32 - 2),
    mtime=st.integers(-(2**33), 2**33),
    mode=st.integers(0, 0o7777),
)
def test_metadata_survives(path: str, target: str, uid: int, mtime: int, mode: int) -> None:
    file = FileInfo(kinds.FILE, mode, uid, uid, 1, mtime * 10**9)
    xattrs = {"security.capability": b"\x00=\n\xff"}
    raw = written(
        (path, file, {"content": b"x", "xattrs": xattrs}),
        (path + "l", FileInfo(kinds.SYMLINK, 0o777, link=target), {}),
    )
    got, link = members(raw)
    assert (got.name, got.mode, got.uid, got.gid, got.mtime) == (path, mode, uid, uid, mtime)
    assert link.linkname == target
    first, second = read_archive(io.BytesIO(raw))
    assert (first.path, first.info, first.xattrs) == (path, file, xattrs)
    assert second.info.link == target


def test_huge_sizes_go_into_a_record() -> None:
    pieces: list[bytes] = []
    writer = TarWriter(pieces.append)
    with pytest.raises(LayerError):
        writer.add("big", FileInfo(kinds.FILE, 0o644, size=8 << 30), content=os.open("/dev/null", os.O_RDONLY))
    assert b"size=8589934592\n" in pieces[0]
    with tarfile.open(fileobj=io.BytesIO(pieces[0])) as tar:
        first = tar.next()
        assert first is not None
        assert first.size == 8 << 30


def test_whiteouts() -> None:
    pieces: list[bytes] = []
    writer = TarWriter(pieces.append)
    writer.whiteout("a/b")
    writer.whiteout("c")
    writer.opaque("d")
    writer.close()
    assert [member.name for member in members(b"".join(pieces))] == ["a/.wh.b", ".wh.c", "d/.wh..wh..opq"]


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 7])
def test_files_are_read_from_descriptors(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "f").write_bytes(data)
    descriptor = os.open(tmp_path / "f", os.O_RDONLY)
    try:
        raw = written(("f", FileInfo(kinds.FILE, 0o644, size=size), {"content": descriptor}))
    finally:
        os.close(descriptor)
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        file = tar.extractfile("f")
        assert file is not None
        assert file.read() == data


def test_a_large_file_comes_in_pieces_for_which_there_is_room(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(3_000_000))
    pieces: list[bytes] = []
    room = iter([600_000, 1, 2_000_000, 2_000_000])
    writer = TarWriter(pieces.append, room=lambda: next(room))
    with open(tmp_path / "f", "rb") as file:
        writer.add("f", FileInfo(kinds.FILE, 0o644, size=3_000_000), content=file.fileno())
    assert [len(piece) for piece in pieces] == [512, 600_000, 1, 2_000_000, 399_999, -3_000_000 % 512]


@pytest.mark.parametrize("stated", [0, 4, 6, 2 << 20])
def test_a_size_that_changed_is_an_error(tmp_path: Path, stated: int) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    descriptor = os.open(tmp_path / "f", os.O_RDONLY)
    try:
        with pytest.raises(LayerError, match="changed while it was read"):
            written(("f", FileInfo(kinds.FILE, 0o644, size=stated), {"content": descriptor}))
    finally:
        os.close(descriptor)


def test_names_that_no_file_can_have() -> None:
    for path in ("a" * 256, "é" * 128, f"d/{'a' * 256}/f"):
        with pytest.raises(LayerError, match="256 bytes, and file systems allow 255") as caught:
            written((path, FileInfo(kinds.DIRECTORY, 0o755), {}))
        assert caught.value.place == f"/{path}"
    written(("/".join(["a" * 255] * 20), FileInfo(kinds.DIRECTORY, 0o755), {}))
    pieces: list[bytes] = []
    TarWriter(pieces.append).whiteout("d/" + "a" * 255)  # whose entry has a longer name
    with pytest.raises(LayerError, match="256 bytes"):
        TarWriter(pieces.append).whiteout("d/" + "a" * 256)


def test_what_tar_cannot_hold() -> None:
    with pytest.raises(LayerError, match="socket"):
        written(("s", FileInfo(kinds.SOCKET, 0o600), {}))
    with pytest.raises(LayerError, match="attribute"):
        written(("f", FileInfo(kinds.FILE, 0o600), {"xattrs": {"user.a=b": b""}}))
    with pytest.raises(LayerError, match="bytes"):
        written(("f", FileInfo(kinds.FILE, 0o600, size=3), {"content": b""}))
