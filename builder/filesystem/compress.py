"""From tar bytes to a layer blob: hashed, compressed, hashed again and written, all at once.

The stream is cut into blocks that are compressed on their own: gzip as raw deflate blocks inside one member (what pigz
does), zstd as one frame a block. So the work spreads over the cores, while the blob's bytes depend on nothing but the
content, the format and the level: not on timing, on the number of threads, or on how `write` was called. Every reader
of the formats takes them. The libraries let go of the interpreter lock, so threads do overlap.

Blocks of gzip end at headers that the tar bytes choose (see `cuts`): most of those of an earlier layer that is almost
the same can be taken over, which gives the bytes that compressing would. Others are all equally long.

A layer of one small block never starts a thread.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from builder.errors import MAKE_ROOM, NO_ROOM, StoreError
from builder.filesystem.compression import SUFFIXES
from builder.filesystem.cuts import HEADER, cut
from builder.filesystem.encoders import BLOCKS, LEAST, crc32, encoder, gzip_coding
from builder.oci.digests import StreamHasher, sha256
from builder.oci.spec import OCI_LAYER

if TYPE_CHECKING:
    from builder.filesystem.blocks import BlockIndex, Blocks, Indexer
    from builder.filesystem.pipeline import Pipeline

SMALL = 256 << 10  # bytes that are gathered before threads are worth their start (60 µs each)
# Deflate, no flags, no time, no extra flags, made on Unix: no name, so that equal content gives equal bytes.
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\x03"
_DEFLATE_END = b"\x03\0"  # an empty final block


class LayerBlob(msgspec.Struct, frozen=True):
    """A finished layer in a temporary file at `path`. `diff_id` and `digest` like `sha256:…`; sizes in bytes."""

    diff_id: str
    digest: str
    size: int
    uncompressed_size: int
    media_type: str
    path: str


class Output:
    """The blob's file while it grows: takes compressed bytes in order, and hashes and counts them.

    The frame around the compressed blocks (gzip's header and trailer) is its business too.
    """

    def __init__(self, path: str, compression: str) -> None:
        self.path = path
        self.size = 0
        self._gzip = compression == "gzip"
        self._hash = StreamHasher()
        self._file = -1
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"cannot write a layer: {error.strerror}", place=path) from error
        if self._gzip:
            self.write(_GZIP_HEADER)

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        self.size += len(data)
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._file, rest) :]
            except OSError as error:
                remedy = MAKE_ROOM if error.errno in NO_ROOM else None
                raise StoreError(f"cannot write a layer: {error.strerror}", place=self.path, remedy=remedy) from error

    def finish(self, crc: int, uncompressed: int, *, sync: bool) -> str:
        """Write the trailer; returns the digest once the bytes are on the disk."""
        if self._gzip:
            self.write(_DEFLATE_END + struct.pack("<II", crc, uncompressed & 0xFFFFFFFF))
        if sync:
            os.fsync(self._file)
        self.close()
        return "sha256:" + self._hash.hexdigest()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class LayerSink:
    """Takes a layer's tar bytes and makes the blob.

    `directory` is where the temporary file goes (the caller renames it from there); `compression` is `gzip`, `zstd` or
    `uncompressed`; `level` the format's own. With `sync=False` the caller answers for fsync; with `indexed` there is
    an index of a gzip blob's blocks in the end. Use one thread for all methods; each sink must end with `finish` or
    `abort`, or be used as a context manager, which aborts what was not finished.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        compression: str = "gzip",
        level: int | None = None,
        sync: bool = True,
        threads: int | None = None,
        indexed: bool = False,
    ) -> None:
        self._compression = compression
        self._level = level
        self._sync = sync
        self._threads = threads
        self._block = BLOCKS.get(compression, SMALL)
        self._encode = encoder(compression, level)
        self._pending: list[bytes] = []
        self._gathered = 0
        self._total = 0
        self._pipeline: Pipeline | None = None
        self._done = False
        self._output = Output(f"{os.fspath(directory)}/layer-{os.getpid()}-{os.urandom(8).hex()}", compression)
        self._indexer = self._new_indexer() if indexed and compression == "gzip" else None
        self._coming: deque[int | tuple[Blocks, int, int]] = deque()  # what is written next: its length, or whose it is

    def _new_indexer(self) -> Indexer:
        from builder.filesystem.blocks import Indexer

        return Indexer(gzip_coding(self._level), self._output.size)

    @property
    def index(self) -> BlockIndex | None:
        """Where the blocks of the finished blob are."""
        return self._indexer.finish() if self._indexer is not None else None

    @property
    def total(self) -> int:
        """The bytes of the tar stream so far."""
        return self._total

    @property
    def room(self) -> int:
        """The bytes that fill the block which is gathered now, unless it ends before at a chosen header; at least 1."""
        return self._block - self._gathered

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take a piece of the tar stream, of any size. Raises what a thread failed with, if one did."""
        piece = data if type(data) is bytes else bytes(data)
        size = len(piece)
        self._pending.append(piece)
        self._gathered += size
        self._total += size
        if self._gathered >= self._block:
            self._cut()
        return size

    def take_over(self, blocks: Blocks, first: int, last: int) -> bool:
        """Take what comes next in the stream from an earlier blob: its blocks from `first` to before `last`, none of
        them its last one. What is written next begins with the header that came there, too. False, and nothing is
        taken, where compressing would make other blocks. Raises what a thread failed with."""
        if self._indexer is None or self._indexer.coding != blocks.coding:
            return False
        self._cut()
        if self._gathered:
            at_header = first > 0 and blocks.plain[first - 1] < self._block
            if not at_header or not LEAST <= self._gathered <= self._block - HEADER:
                return False
            self._submit(b"".join(self._pending))
            self._pending, self._gathered = [], 0
        self._total += blocks.starts[last] - blocks.starts[first]
        self._coming.append((blocks, first, last))
        self._threaded().submit_loaded(partial(blocks.read, first, last))
        return True

    def finish(self) -> LayerBlob:
        """Compress and write what is left. The blob is on the disk when this returns (unless `sync=False`)."""
        try:
            if self._pipeline is None and self._gathered <= SMALL:
                diff_id, crc = self._finish_small()
            else:
                self._cut()
                if self._gathered:
                    self._submit(b"".join(self._pending))
                diff_id, crc = self._threaded().finish()
            digest = self._output.finish(crc, self._total, sync=self._sync)
        except BaseException:
            self.abort()
            raise
        self._done = True
        media_type = OCI_LAYER + SUFFIXES[self._compression]
        return LayerBlob(diff_id, digest, self._output.size, self._total, media_type, self._output.path)

    def abort(self) -> None:
        """Stop the threads and remove the file. Does nothing after `finish` or a first `abort`."""
        if self._done:
            return
        self._done = True
        self._pending.clear()
        if self._pipeline is not None:
            self._pipeline.abort()
        self._output.close()
        os.unlink(self._output.path)

    def __enter__(self) -> LayerSink:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def _finish_small(self) -> tuple[str, int]:
        data = b"".join(self._pending)
        checksum = crc32(self._compression)
        self._coming.append(len(data))
        self._write(self._encode(data))
        return "sha256:" + sha256(data).hexdigest(), checksum(data, 0) if checksum else 0

    def _cut(self) -> None:
        """Pass on whole blocks; what is left over stays pending."""
        data = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
        start = 0
        while (end := self._end(data, start)) >= 0:
            self._submit(data[start:end])
            start = end
        rest = data[start:]
        self._pending, self._gathered = ([rest] if rest else []), len(rest)

    def _end(self, data: bytes, start: int) -> int:
        """Where the block at `start` ends; -1 if that cannot be told yet."""
        if self._compression == "gzip":
            return cut(data, start, LEAST, self._block)
        return start + self._block if len(data) - start >= self._block else -1

    def _submit(self, block: bytes) -> None:
        self._coming.append(len(block))
        self._threaded().submit(block)

    def _threaded(self) -> Pipeline:
        if self._pipeline is None:
            from builder.filesystem.pipeline import Pipeline

            self._pipeline = Pipeline(self._encode, self._write, crc32(self._compression), self._threads)
        return self._pipeline

    def _write(self, packed: bytes) -> None:
        """Write what was made of the block, or the blocks, whose turn it is."""
        coming = self._coming.popleft()
        self._output.write(packed)
        if self._indexer is None:
            return
        if isinstance(coming, int):
            self._indexer.add(coming, packed)
        else:
            self._indexer.take(*coming)
