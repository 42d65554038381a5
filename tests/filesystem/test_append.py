"""Large files behind what was written."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

from builder.errors import LayerError
from builder.filesystem import append, kinds, tar
from builder.filesystem.append import appender
from builder.filesystem.tar import TarWriter
from builder.filesystem.tree import FileInfo

PIECE = 1 << 20
SIZES = [0, 1, 511, 2 * PIECE - 1, 2 * PIECE, 2 * PIECE + 1, 3 * PIECE + 12_345]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(4 * PIECE))
    return path


def appended(source: Path, target: Path, size: int) -> tuple[int, bytes]:
    """What `appender` says and writes between two short texts."""
    with open(source, "rb") as reading, open(target, "wb") as file:
        file.write(b"before")
        to_end = appender(file)
        assert to_end is not None
        found = to_end(reading.fileno(), size)
        file.write(b"behind")
    return found, target.read_bytes()


@pytest.mark.parametrize("size", SIZES)
def test_what_is_appended(source: Path, tmp_path: Path, size: int) -> None:
    expected = b"before" + source.read_bytes()[:size] + b"behind"
    assert appended(source, tmp_path / "target", size) == (size, expected)


@pytest.mark.parametrize("missing", [1, PIECE, 3 * PIECE, 4 * PIECE])
def test_a_file_that_has_less(source: Path, tmp_path: Path, missing: int) -> None:
    os.truncate(source, 4 * PIECE - missing)
    assert appended(source, tmp_path / "target", 4 * PIECE)[0] == 4 * PIECE - missing


def test_where_no_room_can_be_made_beforehand(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not here")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert appended(source, tmp_path / "target", 3 * PIECE)[1][6:-6] == source.read_bytes()[: 3 * PIECE]


def test_a_disk_that_is_full(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the room that is asked for beforehand, and of a piece, whichever half it is of."""

    def full(*given: object) -> int:
        raise OSError(errno.ENOSPC, "no room")

    for call in ("posix_fallocate", "pwrite"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            with pytest.raises(OSError, match="no room"):
                appended(source, tmp_path / "target", 3 * PIECE)


def test_what_writes_a_little_at_a_time(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: whole(file, data[:300_000], at))
    assert appended(source, tmp_path / "target", 3 * PIECE)[1][6:-6] == source.read_bytes()[: 3 * PIECE]


def test_only_to_files_whose_places_can_be_named(tmp_path: Path) -> None:
    assert appender(io.BytesIO()) is None
    with open(tmp_path / "log", "ab") as file:
        assert appender(file) is None
    reading, writing = os.pipe()
    with open(reading, "rb"), open(writing, "wb") as pipe:
        assert appender(pipe) is None
    with open("/dev/null", "wb") as device:
        assert appender(device) is None


@pytest.mark.parametrize("stated", [-1, 0, 1])
def test_archives_are_the_same(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stated: int) -> None:
    """And a size that is not the file's is refused as it is without."""
    monkeypatch.setattr(append, "LARGE", PIECE)
    monkeypatch.setattr(tar, "LARGE", PIECE)
    size = source.stat().st_size + stated
    with open(tmp_path / "archive", "wb") as file:
        for writer in (TarWriter(file.write, appender(file)), TarWriter((plain := io.BytesIO()).write)):
            with open(source, "rb") as reading:
                if stated:
                    with pytest.raises(LayerError, match="changed while it was read"):
                        writer.add("f", FileInfo(kinds.FILE, 0o644, size=size), content=reading.fileno())
                else:
                    writer.add("f", FileInfo(kinds.FILE, 0o644, size=size), content=reading.fileno())
                    writer.add("g", FileInfo(kinds.FILE, 0o644, size=1), content=b"g")
                    writer.close()
    if not stated:
        assert (tmp_path / "archive").read_bytes() == plain.getvalue()
