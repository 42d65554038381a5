"""A COPY's layer made from the one that the same step made before: of thirty thousand files only those are read that
changed, and everything between them comes from the earlier layer's bytes.

With a layer it is kept where each regular file lies in its tar stream, and its mark: a hash of all that this piece
depends on, which is path, mode, owner, size, time, and the SHA-256 of the content. What a file's content is now is
known without reading it as far as its fingerprint is (`fingerprints`). Both layers have their entries in one order,
so the earlier one is read once, from its beginning to its end, where its checksum says whether it is whole.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable

import msgspec

from builder.errors import LayerError
from builder.filesystem.archive import Readable
from builder.filesystem.compress import LayerSink
from builder.filesystem.compression import GZIP, kind_of
from builder.filesystem.tree import Kind
from builder.solver.staging import Staged
from builder.store.layers import is_claim
from builder.store.store import Store

FEWEST = 64
"""Files below which reading them is as quick as this."""

_KIND = "members-1"
_PIECE = 1 << 20
_MARK = 16  # bytes


class Damaged(LayerError):
    """The earlier layer's blob is not what it was: all must be read anew."""


class _Members(msgspec.Struct, frozen=True, array_like=True):
    """The regular files of a layer in their order: their marks, and where each lies in the tar stream, as an array of
    beginnings and ends."""

    diff_id: str
    marks: bytes
    spans: bytes


class Recycler:
    """Takes part in writing one layer. `place` names the step; `digest_of` gives the SHA-256 of a file's content
    (hexadecimal), None if that is not known without reading it. With `afresh` there is no earlier layer."""

    def __init__(
        self, store: Store, place: str, digest_of: Callable[[Staged], str | None], *, afresh: bool = False
    ) -> None:
        self._store = store
        self._place = place
        self._digest_of = digest_of
        self._marks = bytearray()
        self._spans = array("Q")
        self._earlier: dict[bytes, int] = {}  # where a mark is in `_earlier_spans`
        self._earlier_spans = array("Q")
        self._stream: Readable | None = None
        self._position = 0  # of the earlier stream
        self._run = (0, 0)  # what of it comes next
        self._sink: LayerSink | None = None
        if not afresh:
            self._open()

    def _open(self) -> None:
        """Find the earlier layer, if it is here in a form that has a checksum."""
        data = self._store.database.memo(_KIND, self._place)
        if data is None:
            return
        try:
            members = msgspec.msgpack.decode(data, type=_Members)
        except msgspec.MsgspecError:
            return
        layers = self._store.layers
        record = layers.record(members.diff_id)
        if record is None or is_claim(record) or kind_of(record.media_type) != GZIP:
            return
        if self._store.layout.has(record.digest):
            self._stream = layers.open_tar(members.diff_id)
            self._earlier_spans.frombytes(members.spans)
            marks = members.marks
            self._earlier = {marks[at : at + _MARK]: at // _MARK * 2 for at in range(0, len(marks), _MARK)}

    def begin(self, sink: LayerSink) -> None:
        """Write into `sink` from now on."""
        self._sink = sink

    def recycle(self, entry: Staged) -> bool:
        """Have an entry's bytes taken from the earlier layer, if it has them. Raises Damaged."""
        if not _is_plain(entry) or (digest := self._digest_of(entry)) is None:
            return False
        mark = _mark(entry, digest)
        place = self._earlier.get(mark)
        if place is None:
            return False
        start, end = self._earlier_spans[place : place + 2]
        if start != self._run[1]:
            if start < self._run[1]:
                return False
            self.flush()
            self._run = (start, start)
        began = self._offset()
        self._run = (self._run[0], end)
        self._note(mark, began)
        return True

    def flush(self) -> None:
        """Write what is taken from the earlier layer so far. Raises Damaged."""
        assert self._sink is not None
        start, end = self._run
        if start == end:
            return
        self._read(start, None)
        self._read(end, self._sink.write)
        self._run = (end, end)

    def written(self, entry: Staged, digest: str | None, start: int) -> None:
        """Note an entry that was written anew, from `start` on."""
        if digest is not None and _is_plain(entry):
            self._note(_mark(entry, digest), start)

    def finish(self) -> None:
        """Write the rest, and see whether the earlier layer was whole. Raises Damaged."""
        self.flush()
        if self._position and self._stream is not None:
            self._read(None, None)

    def close(self) -> None:
        """Close the earlier layer's blob."""
        close = getattr(self._stream, "close", None)
        if close is not None:
            close()

    def keep(self, diff_id: str) -> None:
        """Keep where the files are, now that the layer is in the store."""
        if len(self._spans) >= 2 * FEWEST:
            data = msgspec.msgpack.encode(_Members(diff_id, bytes(self._marks), self._spans.tobytes()))
            self._store.database.add_memo(_KIND, self._place, data, holds=diff_id)

    def _offset(self) -> int:
        assert self._sink is not None
        return self._sink.total + self._run[1] - self._run[0]

    def _note(self, mark: bytes, start: int) -> None:
        self._marks += mark
        self._spans.extend((start, self._offset()))

    def _read(self, end: int | None, write: Callable[[bytes], object] | None) -> None:
        """Read the earlier stream up to `end` (None: to its end)."""
        assert self._stream is not None
        while end is None or self._position < end:
            try:
                piece = self._stream.read(_PIECE if end is None else min(_PIECE, end - self._position))
            except LayerError as error:
                raise Damaged(error.cause, place=error.place) from error
            if not piece:
                if end is None:
                    return
                raise Damaged("the layer is shorter than it was", place=self._place)
            self._position += len(piece)
            if write is not None:
                write(piece)


def _is_plain(entry: Staged) -> bool:
    """Whether an entry's bytes depend on nothing but what its mark says."""
    return entry.info.kind is Kind.FILE and entry.hardlink is None and not entry.xattrs


def _mark(entry: Staged, digest: str) -> bytes:
    info = entry.info
    seconds = info.mtime_ns // 1_000_000_000
    said = (os.fsencode(entry.path), info.mode, info.uid, info.gid, info.size, seconds, digest)
    return hashlib.blake2b(msgspec.msgpack.encode(said), digest_size=_MARK).digest()
