"""TarReader: archives of independent writers, and hostile ones."""

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
from builder.filesystem.archive import TarReader, clean, read_archive
from tests.support.archives import archive


def header(name: bytes, size: bytes, kind: bytes = b"0", magic: bytes = b"ustar\x0000") -> bytes:
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[124 : 124 + len(size)] = size
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = magic
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("form", ["v7", "ustar", "oldgnu", "gnu", "posix"])
def test_gnu_tar_archives(tmp_path: Path, form: str) -> None:
    source = tmp_path / "s"
    (source / "sub").mkdir(parents=True)
    (source / "f").write_bytes(b"data" * 1000)
    os.link(source / "f", source / "hard")
    (source / "link").symlink_to("f")
    if form != "v7":
        os.mkfifo(source / "pipe")
    if form not in ("v7", "ustar"):
        (source / ("n" * 150)).write_bytes(b"long")
        (source / "longlink").symlink_to("t" * 150)
        os.utime(source / "f", ns=(0, -1_500_000_000))
    command = ["tar", "-c", f"--format={form}", "--sort=name", "-C", str(source), "."]
    raw = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    found = {}
    for entry in read_archive(io.BytesIO(raw)):
        found[entry.path] = (entry.info, entry.hardlink, entry.content.read())
    assert found["f"][2] == b"data" * 1000
    assert found["hard"][1] == "f"
    assert found["link"][0].link == "f"
    assert found["sub"][0].kind == kinds.DIRECTORY
    assert found[""][0].kind == kinds.DIRECTORY
    if form not in ("v7", "ustar"):
        assert found["n" * 150][2] == b"long"
        assert found["longlink"][0].link == "t" * 150
        assert found["f"][0].mtime_ns == (-1_500_000_000 if form == "posix" else -2_000_000_000)


@given(st.lists(st.integers(1, 700), max_size=30), st.data())
def test_chunks_of_any_size(cuts: list[int], data: st.DataObject) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for index in range(4):
            info = tarfile.TarInfo(f"{index}" * (1 + 60 * index))
            info.size = index * 300
            tar.addfile(info, io.BytesIO(b"%d" % index * info.size))
    whole = raw.getvalue()[: 10 << 10]
    chunks, position = [], 0
    for cut in cuts:
        chunks.append(whole[position : position + cut])
        position += cut
    chunks.append(whole[position:])
    read = {entry.path: entry.content.read(data.draw(st.integers(-1, 400))) for entry in TarReader(chunks)}
    assert list(read) == ["0", "1" * 61, "2" * 121, "3" * 181]
    assert all(content == content[:1] * len(content) for content in read.values())


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/etc/passwd", "etc/passwd"), ("../../etc/passwd", "etc/passwd"), ("./a//b/./c/", "a/b/c"), ("a/../../b", "b"),
        (".", ""), ("..", ""), ("a/..", ""), ("...", "..."), ("..a/b..", "..a/b.."), (".wh.x", ".wh.x"),
    ],
)  # fmt: skip
def test_names_are_cleaned(name: str, path: str) -> None:
    assert clean(name) == path


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (header(b"s", b"00000000000\0", b"S"), "s: is a GNU sparse file"),
        (header(b"m", b"00000000000\0", b"M"), "m: is a part of a multi-volume archive"),
        (header(b"z", b"00000000000\0", b"Z"), "unknown type 'Z'"),
        (header(b"f", b"0000000x000\0"), "f: the size .* is malformed"),
        (header(b"f", b"\xff" * 12), "negative size"),
        (header(b"f", b"00000001000\0")[:300], "truncated"),
        (header(b"f", b"00000001000\0") + b"x" * 100, "f: the archive is truncated"),
        (header(b"f", b"00000000003\0") + b"abc", "f: the archive is truncated"),
        (header(b"f", b"00000000000\0").replace(b"f", b"g", 1), "checksum"),
        (b"not a tar archive" * 31, "no tar archive"),
        (header(b"x", b"00000000005\0", b"x") + b"9 a=b".ljust(512, b"\0"), "extended header is malformed"),
        (header(b"x", b"00000000004\0", b"x") + b"0 a\n".ljust(512, b"\0"), "extended header is malformed"),
        (header(b"x", b"77777777777\0", b"x"), "more than 1048576"),
        (header(b"x", b"\x80" + b"\0" * 3 + b"\xff" * 8, b"L"), "more than 1048576"),
        (header(b"x", b"00000000006\0", b"x") + b"6 a=b\n".ljust(512, b"\0"), "has no entry"),
    ],
)
def test_malformed_archives_are_refused(raw: bytes, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        [entry.content.read() for entry in read_archive(io.BytesIO(raw))]


@pytest.mark.parametrize("record", [b"size=-1", b"size=x", b"mtime=abc", b"uid=1.5", b"GNU.sparse.major=1"])
def test_malformed_records_are_refused(record: bytes) -> None:
    body = b"%d %s\n" % (len(record) + 4, record)
    raw = header(b"x", b"%011o\0" % len(body), b"x") + body.ljust(512, b"\0") + header(b"f", b"00000000000\0")
    with pytest.raises(LayerError, match=r"malformed|sparse"):
        list(read_archive(io.BytesIO(raw)))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"uid=4294967295", "an owner that there cannot be"),
        (b"gid=4294967296", "an owner that there cannot be"),
        (b"SCHILY.xattr.user.a\0b=1", "an attribute's name holds a NUL byte"),
    ],
)
def test_what_no_file_has_is_refused(record: bytes, message: str) -> None:
    length = len(record) + 2 + len(str(len(record) + 4))
    body = b"%d %s\n" % (length, record)
    raw = header(b"x", b"%011o\0" % len(body), b"x") + body.ljust(512, b"\0") + header(b"f", b"00000000000\0")
    with pytest.raises(LayerError, match=message):
        list(read_archive(io.BytesIO(raw)))


@pytest.mark.parametrize("field", ["devmajor", "devminor"])
def test_devices_that_there_cannot_be(field: str) -> None:
    info = tarfile.TarInfo("d")
    info.type = tarfile.CHRTYPE
    setattr(info, field, 0o7777777)
    with pytest.raises(LayerError, match="d: has device numbers that there cannot be"):
        list(read_archive(io.BytesIO(info.tobuf())))


def test_the_limit_of_entries() -> None:
    raw = header(b"a", b"00000000000\0") + header(b"b", b"00000001000\0") + bytes(512)
    with pytest.raises(LayerError, match="more than 1 entries"):
        list(read_archive(io.BytesIO(raw), max_entries=1))
    assert len(list(read_archive(io.BytesIO(raw), max_entries=2))) == 2


def test_the_limit_of_all_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may be 4 KB long, and is kept: as many entries as are allowed would take 10 GB."""
    monkeypatch.setattr("builder.filesystem.archive._PATH_BYTES", 1000)
    raw = archive(*((f"{'d' * 200}/{number}", {"data": b""}) for number in range(5)))
    with pytest.raises(LayerError, match="paths in the archive have more than 1000 bytes") as caught:
        list(read_archive(io.BytesIO(raw), max_entries=5))
    assert "raise entries below [limits]" in (caught.value.remedy or "")
    assert caught.value.place == "d" * 100
    for allowed in (8, None):  # who allows more entries allows longer paths
        assert len(list(read_archive(io.BytesIO(raw), max_entries=allowed))) == 5


def test_global_headers_are_skipped_and_the_prefix_is_ustar_only() -> None:
    body = b"14 path=other\n"
    raw = header(b"g", b"%011o\0" % len(body), b"g") + body.ljust(512, b"\0") + header(b"f", b"00000000000\0")
    gnu = bytearray(header(b"n", b"00000000000\0", magic=b"ustar  \0"))
    gnu[345:350] = b"12345"
    gnu[148:156] = b" " * 8
    gnu[148:156] = b"%06o\0 " % sum(gnu)
    assert [entry.path for entry in read_archive(io.BytesIO(raw + bytes(gnu)))] == ["f", "n"]


@pytest.mark.parametrize(
    "uid", [b"000017 \0", b"     17\0", b"17\0junk!", b"00000017", b"\x80\0\0\0\0\0\0\x0f", b"0000017\0"]
)
def test_numbers_may_be_written_in_any_known_form(uid: bytes) -> None:
    info = tarfile.TarInfo("f")
    info.mode, info.gid, info.size, info.mtime = 0o640, 7, 3, 1_700_000_000
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    block[108:116] = uid
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    entries = read_archive(io.BytesIO(bytes(block) + b"abc".ljust(512, b"\0")))
    entry = next(entries)
    assert (entry.info.mode, entry.info.uid, entry.info.gid, entry.info.size) == (0o640, 15, 7, 3)
    assert entry.info.mtime_ns == 1_700_000_000 * 10**9
    assert entry.content.read() == b"abc"
    assert next(entries, None) is None


def test_base_256_numbers() -> None:
    raw = header(b"f", b"\x80" + (3).to_bytes(11, "big")) + b"abc" + bytes(509)
    assert [entry.content.read() for entry in read_archive(io.BytesIO(raw))] == [b"abc"]


@given(st.binary(max_size=2048))
def test_garbage_raises_nothing_else(raw: bytes) -> None:
    try:
        for entry in read_archive(io.BytesIO(header(b"x", b"00000001000\0", b"x") + raw + header(b"f", raw[:12]))):
            entry.content.read()
    except LayerError:
        pass
