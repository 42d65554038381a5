"""LayerSink and decompressor."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import random
import subprocess
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from builder.config import ArchiveLimits
from builder.errors import LayerError, StoreError, Unsupported
from builder.filesystem.compress import LayerSink
from builder.filesystem.decompress import decompressor

SIZES = [0, 1, 1024, 256 << 10, (256 << 10) + 1, 1 << 20, (5 << 20) + 3]


def some(size: int) -> bytes:
    """Bytes that compress about by half, the same each time."""
    return b"".join(random.Random(index).randbytes(32) + bytes(32) for index in range(size // 64 + 1))[:size]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "uncompressed"])
@pytest.mark.parametrize("size", SIZES)
def test_round_trip(tmp_path: Path, compression: str, size: int) -> None:
    before = set(threading.enumerate())
    data = some(size)
    blobs = []
    for step in (size or 1, 100_000):
        with LayerSink(tmp_path, compression=compression, threads=1 + (step == 100_000)) as sink:
            for start in range(0, size, step):
                sink.write(data[start : start + step])
                assert sink.room > 0
            blobs.append(sink.finish())
    first, second = blobs
    written = Path(first.path).read_bytes()
    assert Path(second.path).read_bytes() == written, "the bytes depend on nothing but the content"
    assert first.diff_id == "sha256:" + hashlib.sha256(data).hexdigest()
    assert first.digest == "sha256:" + hashlib.sha256(written).hexdigest()
    assert (first.size, first.uncompressed_size) == (len(written), size)
    suffix = {"gzip": "+gzip", "zstd": "+zstd", "uncompressed": ""}[compression]
    assert first.media_type == "application/vnd.oci.image.layer.v1.tar" + suffix
    if compression == "gzip":
        assert gzip.decompress(written) == data
        assert zlib.decompress(written, 31) == data
        assert written[3:8] == bytes(5)
    elif compression == "zstd":
        assert subprocess.run(["zstd", "-dc"], input=written, stdout=subprocess.PIPE, check=True).stdout == data
    with decompressor(io.BytesIO(written)) as reader:
        assert reader.read() == data
    assert set(threading.enumerate()) <= before


def test_levels_and_refusals(tmp_path: Path) -> None:
    data = some(2 << 20)
    sizes = []
    for level in (1, 9):
        with LayerSink(tmp_path, level=level) as sink:
            sink.write(data)
            sizes.append(sink.finish().size)
    assert sizes[1] < sizes[0]
    for compression, wrong in (("gzip", 10), ("zstd", 0), ("lz4", None)):
        with pytest.raises(Unsupported):
            LayerSink(tmp_path, compression=compression, level=wrong)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_small_layer_starts_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda self: pytest.fail("a thread was started"))
    with LayerSink(tmp_path) as sink:
        sink.write(bytes(200_000))
        sink.finish()


def test_abort_leaves_nothing(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with LayerSink(tmp_path) as sink:
        sink.write(some(5 << 20))
    sink.abort()
    assert list(tmp_path.iterdir()) == []
    assert set(threading.enumerate()) <= before


def write_much(sink: LayerSink) -> None:
    for _ in range(100):
        sink.write(bytes(1 << 20))
    sink.finish()


@pytest.mark.parametrize("where", ["encode", "write"])
def test_an_error_in_a_thread_reaches_the_caller(tmp_path: Path, where: str) -> None:
    before = set(threading.enumerate())

    def fail(data: bytes) -> bytes:
        raise StoreError("the disk is full")

    sink = LayerSink(tmp_path)
    if where == "encode":
        sink._encode = fail
    else:
        sink._output.write = fail  # type: ignore[assignment,method-assign]
    with pytest.raises(StoreError, match="disk is full"):
        write_much(sink)
    sink.abort()
    assert list(tmp_path.iterdir()) == []
    assert set(threading.enumerate()) <= before


def test_a_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot write a layer"):
        LayerSink(tmp_path / "missing")


DATA = some(3 << 20)
STREAMS = {
    "gzip": gzip.compress(DATA, 1), "bzip2": bz2.compress(DATA, 1), "xz": lzma.compress(DATA, preset=0),
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress(DATA), "uncompressed": DATA,
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_every_format_is_known_by_its_magic(name: str) -> None:
    reader = decompressor(io.BytesIO(STREAMS[name]), "application/vnd.oci.image.layer.v1.tar+gzip")
    assert reader.compression == name
    read = b""
    while piece := reader.read(700_001):
        read += piece
    assert read == DATA


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd"])
def test_members_in_a_row_and_padding(name: str) -> None:
    assert decompressor(io.BytesIO(STREAMS[name] * 2 + bytes(1000))).read() == DATA * 2


def test_zstd_skippable_frames() -> None:
    skippable = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    raw = skippable + STREAMS["zstd"] + skippable + STREAMS["zstd"]
    assert decompressor(io.BytesIO(raw)).read() == DATA * 2


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd"])
@pytest.mark.parametrize("cut", [7, 1000, -1])
def test_truncated_streams(name: str, cut: int) -> None:
    with pytest.raises(LayerError, match="truncated"):
        decompressor(io.BytesIO(STREAMS[name][:cut])).read()


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd"])
def test_damaged_streams(name: str) -> None:
    raw = bytearray(STREAMS[name])
    raw[5000:5100] = os.urandom(100)
    with pytest.raises(LayerError, match=r"damaged|truncated"):
        decompressor(io.BytesIO(bytes(raw)), place="layer 3").read()
    with pytest.raises(LayerError, match="damaged"):
        decompressor(io.BytesIO(STREAMS[name] + b"garbage" * 10)).read()


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd"])
def test_a_bomb_is_stopped(name: str) -> None:
    make: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstandard.compress,
    }  # fmt: skip
    raw = make[name](bytes(30 << 20))
    with pytest.raises(LayerError, match="more than the 1000000 bytes"):
        decompressor(io.BytesIO(raw), limits=ArchiveLimits(size=1_000_000)).read()
    assert len(decompressor(io.BytesIO(raw), limits=ArchiveLimits(size=30 << 20)).read()) == 30 << 20


def test_encrypted_layers_are_refused() -> None:
    with pytest.raises(Unsupported, match="encrypted"):
        decompressor(io.BytesIO(b""), "application/vnd.oci.image.layer.v1.tar+gzip+encrypted")
