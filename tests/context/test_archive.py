"""Contexts in archives: what is recognised, what is kept, and that nothing hostile leaves the directory."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.config import ArchiveLimits
from builder.context.archive import HEAD_SIZE, Unpacked, is_archive, peek, unpack
from builder.errors import ContextError

Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: object) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mtime = kind, len(data), 1_546_300_800
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def tar(*entries: Entry) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def unpacked(data: bytes, into: Path) -> Unpacked:
    into.mkdir(exist_ok=True)
    return unpack(io.BytesIO(data), str(into))


SIMPLE = tar(
    entry("./d/", tarfile.DIRTYPE, mode=0o2750),
    entry("d/f", data=b"hello", mode=0o640, uid=7, gid=8),
    entry("made/on/the/way", data=b"x"),
    entry("link", tarfile.SYMTYPE, linkname="../../outside"),
    entry("hard", tarfile.LNKTYPE, linkname="./d/f", mode=0o600),
    entry("pipe", tarfile.FIFOTYPE, mode=0o622),
    entry("/absolute", data=b"a", pax_headers={"mtime": "1546300800.123456789"}),
)


def test_entries(tmp_path: Path) -> None:
    result = unpacked(SIMPLE, tmp_path / "c")
    root = tmp_path / "c"
    assert (root / "d/f").read_bytes() == b"hello"
    assert (root / "d").stat().st_mode & 0o7777 == 0o2750
    assert (root / "d").stat().st_mtime == 1_546_300_800
    assert os.readlink(root / "link") == "../../outside"
    assert (root / "hard").stat().st_ino == (root / "d/f").stat().st_ino
    assert (root / "hard").stat().st_mode & 0o7777 == 0o600
    assert (root / "pipe").is_fifo()
    assert (root / "pipe").stat().st_mode & 0o7777 == 0o622
    assert (root / "absolute").stat().st_mtime_ns == 1_546_300_800_123_456_789
    assert result == Unpacked({}, 7, 1_546_300_800)  # the hard link's header says 0:0


def test_owners_are_returned(tmp_path: Path) -> None:
    link = entry("l", tarfile.SYMTYPE, linkname="x", gid=5)
    data = tar(entry("a", uid=1, gid=2), entry("b", uid=3), entry("b"), link)
    assert unpacked(data, tmp_path / "c").owners == {"a": (1, 2), "l": (0, 5)}


@pytest.mark.parametrize("compression", ["none", "gzip", "bzip2", "xz", "zstd"])
def test_compressions(tmp_path: Path, compression: str) -> None:
    pack: dict[str, Callable[[bytes], bytes]] = {
        "none": bytes,
        "gzip": gzip.compress,
        "bzip2": bz2.compress,
        "xz": lzma.compress,
        "zstd": zstandard.ZstdCompressor().compress,
    }
    data = pack[compression](SIMPLE)
    assert is_archive(data[:HEAD_SIZE])
    head, stream = peek(io.BytesIO(data))
    assert head == data[:HEAD_SIZE]
    (tmp_path / "c").mkdir()
    unpack(stream, str(tmp_path / "c"))
    assert (tmp_path / "c/made/on/the/way").read_text() == "x"


def test_what_is_no_archive() -> None:
    for head in (b"", b"FROM scratch\n", b"FROM scratch\n" * 100, b"\xff" * 1024, b"#!/bin/sh\n" + b" " * 600):
        assert not is_archive(head)


def test_peek_of_a_slow_stream() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 1, 3) if size != -1 else 3)

    head, stream = peek(Slow(b"FROM scratch\n" * 200))
    assert len(head) == HEAD_SIZE
    assert stream.read() == b"FROM scratch\n" * 200


HOSTILE = {
    "parent": [entry("../evil", data=b"x")],
    "parent inside": [entry("a/../../evil", data=b"x")],
    "absolute parent": [entry("/../evil", data=b"x")],
    "through a link": [entry("up", tarfile.SYMTYPE, linkname=".."), entry("up/evil", data=b"x")],
    "through an absolute link": [entry("up", tarfile.SYMTYPE, linkname="/tmp"), entry("up/a/evil", data=b"x")],
    "directory through a link": [entry("up", tarfile.SYMTYPE, linkname=".."), entry("up/evil", tarfile.DIRTYPE)],
    "hard link to the outside": [entry("evil", tarfile.LNKTYPE, linkname="../outside")],
    "hard link through a link": [
        entry("up", tarfile.SYMTYPE, linkname=".."), entry("evil", tarfile.LNKTYPE, linkname="up/outside"),
    ],
    "hard link to a link": [
        entry("l", tarfile.SYMTYPE, linkname="../outside"), entry("evil", tarfile.LNKTYPE, linkname="l", mode=0o777),
    ],
    "hard link to nothing": [entry("evil", tarfile.LNKTYPE, linkname="nope")],
    "hard link to itself": [entry("evil", data=b"x"), entry("evil", tarfile.LNKTYPE, linkname="evil")],
    "hard link to a directory": [entry("d", tarfile.DIRTYPE), entry("evil", tarfile.LNKTYPE, linkname="d")],
    "hard link to the root": [entry("evil", tarfile.LNKTYPE, linkname=".")],
    "below a file": [entry("f", data=b"x"), entry("f/evil", data=b"x")],
    "unknown type": [entry("evil", b"Z")],
    "overlong name": [entry("x" * 300, data=b"x")],
    "link without target": [entry("evil", tarfile.SYMTYPE)],
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_entries_are_refused(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.write_text("precious")
    outside.chmod(0o600)
    with pytest.raises(ContextError) as caught:
        unpacked(tar(*HOSTILE[name]), tmp_path / "c")
    assert caught.value.place == "context archive"
    assert sorted(os.listdir(tmp_path)) == ["c", "outside"]
    assert outside.read_text() == "precious"
    assert (outside.stat().st_mode & 0o777, outside.stat().st_nlink) == (0o600, 1)


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("precious")
    data = tar(
        entry("f", tarfile.SYMTYPE, linkname="../outside"), entry("f", data=b"new", mode=0o755),
        entry("d", tarfile.SYMTYPE, linkname=".."), entry("d", tarfile.DIRTYPE, mode=0o700), entry("d/g", data=b"g"),
        entry("tree/a/b", data=b"x", uid=9), entry("tree", data=b"a file now"),
        entry("dir", tarfile.DIRTYPE, mode=0o700), entry("dir", tarfile.SYMTYPE, linkname="../outside"),
    )  # fmt: skip
    result = unpacked(data, tmp_path / "c")
    assert (tmp_path / "outside").read_text() == "precious"
    assert (tmp_path / "c/f").read_text() == "new"
    assert (tmp_path / "c/d/g").read_text() == "g"
    assert (tmp_path / "c/tree").read_text() == "a file now"
    assert (tmp_path / "c/dir").is_symlink()
    assert result.owners == {}


def test_what_is_replaced_costs_what_was_in_it(tmp_path: Path) -> None:
    """And nothing for all that is known of other files."""
    turn = entry("d", tarfile.DIRTYPE), entry("d/e/f", uid=1), entry("d")

    def calls(others: int, turns: int) -> int:
        data = tar(*(entry(f"f{number}", uid=1) for number in range(others)), *turn * turns)
        into = tmp_path / f"{others}-{turns}"
        into.mkdir()
        made: list[str] = []
        sys.setprofile(lambda frame, event, argument: made.append(event) if "call" in event else None)
        try:
            found = unpack(io.BytesIO(data), str(into))
        finally:
            sys.setprofile(None)
        assert len(found.owners) == others
        return len(made)

    assert calls(300, 20) - calls(300, 0) == pytest.approx(calls(3, 20) - calls(3, 0), rel=0.2)


def test_owners_go_with_what_is_replaced(tmp_path: Path) -> None:
    inner = entry("d", tarfile.DIRTYPE, mode=0o700), entry("d/e", tarfile.DIRTYPE, uid=1), entry("d/e/f", uid=2)
    again = entry("d/e", tarfile.DIRTYPE, mode=0o711), entry("d/e/g", uid=3)
    result = unpacked(tar(*inner, entry("other/f", uid=4), entry("d"), *inner[:1], *again), tmp_path / "c")
    assert result.owners == {"other/f": (4, 0), "d/e/g": (3, 0)}
    assert (tmp_path / "c/d/e").stat().st_mode & 0o7777 == 0o711


def test_damaged_archives(tmp_path: Path) -> None:
    packed = gzip.compress(SIMPLE)
    middle = bytearray(SIMPLE)
    middle[1024 + 512 + 148] ^= 0x55
    for number, data in enumerate([
        b"no archive at all" * 100,
        SIMPLE[:1300],
        SIMPLE[: SIMPLE.index(b"hello") + 2],
        packed[:-20],
        packed[:30] + b"\0" * 50,
        bz2.compress(SIMPLE)[:-10],
        lzma.compress(SIMPLE)[:100],
        zstandard.ZstdCompressor().compress(SIMPLE)[:60],
        gzip.compress(b"FROM scratch"),
        bytes(middle),
    ]):  # fmt: skip
        with pytest.raises(ContextError, match="cannot be read") as caught:
            unpacked(data, tmp_path / str(number))
        assert caught.value.remedy


def test_limits(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    bomb = io.BytesIO(gzip.compress(tar(entry("zeros", data=b"\0" * (4 << 20)))))
    with pytest.raises(ContextError, match="more than the 1048576 bytes"):
        unpack(bomb, str(tmp_path / "c"), limits=ArchiveLimits(size=1 << 20))
    with pytest.raises(ContextError, match="more than 3 entries"):
        unpack(io.BytesIO(SIMPLE), str(tmp_path / "c"), limits=ArchiveLimits(entries=3))


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    unpacked(tar(entry("\udcff\udcfe", data=b"x")), tmp_path / "c")
    assert os.listdir(os.fsencode(tmp_path / "c")) == [b"\xff\xfe"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_damage_is_an_error_or_harmless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    image = bytearray(SIMPLE)
    for _ in range(data.draw(st.integers(1, 6))):
        image[data.draw(st.integers(0, len(SIMPLE) // 2))] = data.draw(st.integers(0, 255))
    root = tmp_path_factory.mktemp("damage")
    with contextlib.suppress(ContextError):
        unpacked(bytes(image), root / "c")
    assert os.listdir(root) == ["c"]
