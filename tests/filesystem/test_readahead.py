"""A stream that is read and hashed by threads: all of it, in its order, and none of them left behind."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import threading

import pytest
import zstandard

from builder.errors import LayerError
from builder.filesystem.decompress import decompressor
from builder.filesystem.readable import Readable
from builder.filesystem.readahead import ReadAhead

MIB = 1 << 20


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "read ahead"]


class Short:
    """A stream that gives less than is asked for, as a growing file does; it fails where its data ends with an
    error."""

    def __init__(self, data: bytes, most: int, error: Exception | None = None) -> None:
        self._file = io.BytesIO(data)
        self._most = most
        self._error = error

    def read(self, size: int, /) -> bytes:
        data = self._file.read(min(size, self._most))
        if not data and self._error is not None:
            raise self._error
        return data


DATA = os.urandom(5 * MIB + 17)


@pytest.mark.parametrize("size", [0, 1, MIB, 2 * MIB, 2 * MIB + 1, len(DATA)])
@pytest.mark.parametrize("kind", ["file", "short", "gzip", "zstd", "uncompressed"])
def test_all_bytes_in_their_order(size: int, kind: str) -> None:
    data = DATA[:size]
    streams: dict[str, Readable] = {
        "file": io.BytesIO(data),
        "short": Short(data, 300_000),
        "gzip": decompressor(io.BytesIO(gzip.compress(data, 1))),
        "zstd": decompressor(io.BytesIO(zstandard.compress(data))),
        "uncompressed": decompressor(io.BytesIO(b"\0" * 8 + data)),
    }
    with ReadAhead(streams[kind]) as chunks:
        read = list(chunks)
        assert max(map(len, read), default=0) <= MIB
        assert kind == "short" or min(map(len, read[:-1]), default=MIB) >= MIB // 4
        found = b"".join(read).removeprefix(b"\0" * 8 if kind == "uncompressed" else b"")
        assert found == data
        assert chunks.digest == "sha256:" + hashlib.sha256(b"".join(read)).hexdigest()
        assert chunks.size == sum(map(len, read))
    assert threads() == []


def test_a_small_stream_starts_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "Thread", lambda **_: pytest.fail("a thread for a small stream"))
    with ReadAhead(Short(DATA[: MIB + 5], 1000)) as chunks:
        assert b"".join(chunks) == DATA[: MIB + 5]


def test_an_error_comes_after_what_was_read_before_it() -> None:
    read: list[bytes] = []
    with ReadAhead(Short(DATA, MIB, LayerError("cut short"))) as chunks, pytest.raises(LayerError, match="cut short"):
        read.extend(chunks)
    assert b"".join(read) == DATA
    assert threads() == []


def test_a_failing_hash_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    add = ReadAhead._add

    def failing(self: ReadAhead, chunk: bytes) -> None:
        if self.size >= 3 * MIB:
            raise MemoryError("no room to hash")
        add(self, chunk)

    monkeypatch.setattr(ReadAhead, "_add", failing)
    endless = Short(b"", 1)
    endless.read = lambda size: bytes(size)  # type: ignore[method-assign]
    with ReadAhead(endless) as chunks, pytest.raises(MemoryError, match="no room"):
        list(chunks)
    assert threads() == []


def test_who_leaves_early_leaves_no_thread() -> None:
    endless = Short(b"", 1)
    endless.read = lambda size: bytes(size)  # type: ignore[method-assign]
    with ReadAhead(endless) as chunks:
        for _ in zip(range(5), chunks, strict=False):
            pass
        assert len(threads()) == 2
    assert threads() == []


def test_a_stream_that_waits_is_told_to_give_up() -> None:
    class Waiting:
        def __init__(self) -> None:
            self.given_up = threading.Event()
            self.left = 3

        def read(self, size: int, /) -> bytes:
            if self.left:
                self.left -= 1
                return bytes(size)
            assert self.given_up.wait(60)
            return b""

        def give_up(self) -> None:
            self.given_up.set()

    waiting = Waiting()
    with ReadAhead(waiting) as chunks:
        for _ in zip(range(3), chunks, strict=False):
            pass
    assert waiting.given_up.is_set()
    assert threads() == []
