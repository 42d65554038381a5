"""A blob's blocks, each compressed on its own: where they lie, so that a later blob can take them over as they are.

A block that holds the same bytes and is made by the same coding is the same compressed. So of a layer that hardly
differs from one in the store most need not be compressed again, only unpacked, because the diff ID is of those bytes.
"""

from __future__ import annotations

import os
from array import array
from itertools import accumulate

import msgspec
import xxhash

from builder.errors import LayerError

_CHECK = 16  # bytes


class Damaged(LayerError):
    """The earlier blob, or its index, is not what was written."""


class BlockIndex(msgspec.Struct, frozen=True, array_like=True):
    """The blocks of a gzip blob in their order. `coding` names what made them, its version included; `begin` is where
    the first one begins in the blob. `plain` and `packed` are arrays of their lengths, uncompressed and compressed,
    `checks` the xxh3 of what is compressed."""

    coding: str
    begin: int
    plain: bytes
    packed: bytes
    checks: bytes


class Indexer:
    """Collects the index of a blob while it is written."""

    def __init__(self, coding: str, begin: int) -> None:
        self.coding = coding
        self._begin = begin
        self._plain = array("I")
        self._packed = array("I")
        self._checks = bytearray()

    def add(self, plain: int, packed: bytes) -> None:
        """A block that was compressed: its uncompressed length, and what became of it."""
        self._plain.append(plain)
        self._packed.append(len(packed))
        self._checks += xxhash.xxh3_128_digest(packed)

    def take(self, blocks: Blocks, first: int, last: int) -> None:
        """Blocks that are another blob's, from `first` to before `last`."""
        self._plain += blocks.plain[first:last]
        self._packed += blocks.packed[first:last]
        self._checks += blocks.checks[_CHECK * first : _CHECK * last]

    def finish(self) -> BlockIndex:
        plain, packed = self._plain.tobytes(), self._packed.tobytes()
        return BlockIndex(self.coding, self._begin, plain, packed, bytes(self._checks))


class Blocks:
    """The blocks of an earlier blob, whose open file is `descriptor`. May be read by several threads.

    `starts` has one number more than there are blocks: where each begins in the uncompressed stream, and its end.
    Raises Damaged for an index that cannot be one.
    """

    def __init__(self, descriptor: int, index: BlockIndex) -> None:
        self._descriptor = descriptor
        self.coding = index.coding
        self.plain = array("I")
        self.packed = array("I")
        try:
            self.plain.frombytes(index.plain)
            self.packed.frombytes(index.packed)
        except ValueError as error:
            raise Damaged("the index of its blocks is damaged") from error
        self.checks = index.checks
        if not len(self.plain) == len(self.packed) == len(self.checks) / _CHECK:
            raise Damaged("the index of its blocks is damaged")
        self.starts = list(accumulate(self.plain, initial=0))
        self._offsets = list(accumulate(self.packed, initial=index.begin))

    def read(self, first: int, last: int) -> tuple[bytes, bytes]:
        """The blocks from `first` to before `last`: uncompressed, and as they are. Raises Damaged."""
        start, end = self._offsets[first], self._offsets[last]
        try:
            data = os.pread(self._descriptor, end - start, start)
        except OSError as error:
            raise Damaged(f"the layer cannot be read: {error.strerror}") from error
        view = memoryview(data)
        for number in range(first, last):
            one = view[self._offsets[number] - start : self._offsets[number + 1] - start]
            if xxhash.xxh3_128_digest(one) != self.checks[_CHECK * number : _CHECK * (number + 1)]:
                raise Damaged("a block of the layer is not what was written")
        plain = _inflate(data, self.starts[last] - self.starts[first])
        return plain, data


def _inflate(data: bytes, size: int) -> bytes:
    """Blocks of deflate, which end on whole bytes, as `size` bytes."""
    from isal import isal_zlib

    damaged: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # the stubs take it for an instance
    try:
        plain: bytes = isal_zlib.decompressobj(-isal_zlib.MAX_WBITS).decompress(data, size)
    except damaged as error:
        raise Damaged(f"a block of the layer is damaged: {error}") from error
    if len(plain) != size:
        raise Damaged("a block of the layer is not as long as it was")
    return plain
