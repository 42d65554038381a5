"""A COPY's layer made from the one that the same step made before: of thirty thousand files only those are read that
changed, and everything between them comes from the earlier layer's blob, mostly without compressing it again.

With a layer it is kept where each entry lies in its tar stream, and its mark: a hash of all that this piece depends on,
which is the path, what the file system says of the file, and the SHA-256 of its content. What a file's content is now
is known without reading it as far as its fingerprint is (`fingerprints`). Both layers have their entries in one order,
so what is taken from the earlier one are a few long runs. Each of its blocks has a check of its own (`blocks`).
"""

# No postponed annotations: msgspec would compile each of them before it first decodes one of the classes here.
from array import array
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import BinaryIO

import msgspec
import xxhash

from builder.errors import StoreError
from builder.filesystem import kinds
from builder.filesystem.blocks import BlockIndex, Blocks, Damaged
from builder.filesystem.compress import LayerBlob, LayerSink
from builder.filesystem.cuts import HEADER
from builder.filesystem.prefetch import NOTHING, prefetched
from builder.solver.staging import Staged
from builder.store.store import Store

FEWEST = 64
"""Files below which reading them is as quick as this."""

_KIND = "members-3"
_MARK = 16  # bytes
_NO_MARK = b""
_NO_CONTENT = b""
_BATCH = 2 << 20  # bytes of the tar stream that are taken over at once


class _Members(msgspec.Struct, frozen=True, array_like=True):
    """The entries of a layer in their order: their marks, and where each lies in the tar stream, as an array of
    beginnings and ends. `digest` is that of the blob whose blocks are known."""

    diff_id: str
    digest: str
    marks: bytes
    spans: bytes
    blocks: BlockIndex


class Recycler:
    """Takes part in writing one layer. `place` names the step; `digest_of` gives the SHA-256 of a file's content, None
    if that is not known without reading it. With `afresh` there is no earlier layer."""

    def __init__(
        self, store: Store, place: str, digest_of: Callable[[Staged], bytes | None], *, afresh: bool = False
    ) -> None:
        self._store = store
        self._place = place
        self._digest_of = digest_of
        self._marks = bytearray()
        self._spans = array("Q")
        self._earlier: dict[bytes, int] = {}  # which entry has a mark
        self._earlier_marks = b""
        self._earlier_spans = array("Q")
        self._file: BinaryIO | None = None
        self._blocks: Blocks | None = None
        self._unpacked = (-1, b"")  # the block that was unpacked last
        self._sink: LayerSink | None = None
        if not afresh:
            self._open()
        self.recycles = bool(self._earlier)
        """Whether there is an earlier layer. It may turn out to be damaged as long as the new one is not finished."""

    def _open(self) -> None:
        """Find the earlier layer, if its blob is still here."""
        data = self._store.database.memo(_KIND, self._place)
        if data is None:
            return
        try:
            members = msgspec.msgpack.decode(data, type=_Members)
            spans = array("Q")
            spans.frombytes(members.spans)
        except (msgspec.MsgspecError, ValueError):
            return
        record = self._store.layers.record(members.diff_id)
        if record is None or self._store.layers.is_claim(record) or not self._store.layout.has(members.digest):
            return
        try:
            self._file = self._store.layout.open(members.digest)
            self._blocks = Blocks(self._file.fileno(), members.blocks)
        except (StoreError, Damaged):  # gone by now; or its index is not one
            return
        marks = members.marks
        if len(marks) * 2 != len(spans) * _MARK:
            return
        self._earlier_marks, self._earlier_spans = marks, spans
        self._earlier = {marks[at : at + _MARK]: at // _MARK for at in range(0, len(marks), _MARK)}

    def take(
        self, entries: Iterable[Staged], sink: LayerSink, open_one: Callable[[Staged], int]
    ) -> Generator[tuple[Staged, int]]:
        """Write into `sink` what the earlier layer has. Gives the others, each with what `open_one` gave for it some
        entries before (see `prefetched`): each is to be written, and told to `written`, before the next is asked for.
        Raises Damaged."""
        self._sink = sink
        begins, ends = self._earlier_spans[::2], self._earlier_spans[1::2]
        first = after = 0  # which of the earlier layer's entries come next

        def open_new(found: tuple[Staged, int | None]) -> int:
            return open_one(found[0]) if found[1] is None else NOTHING

        with closing(prefetched(self._look_up(entries), open_new)) as opened:
            for (entry, number), descriptor in opened:
                if number is None:
                    self._repeat(first, after)
                    first = after = 0
                    yield entry, descriptor
                elif number == after and first < after and begins[number] == ends[number - 1]:
                    after += 1
                else:
                    self._repeat(first, after)
                    first, after = number, number + 1
        self._repeat(first, after)
        self._unpacked = (-1, b"")  # which takes as much memory as other things need next

    def _look_up(self, entries: Iterable[Staged]) -> Iterator[tuple[Staged, int | None]]:
        """The entries, with the numbers of those of the earlier layer that are the same."""
        find, digest_of = self._earlier.get, self._digest_of
        for entry in entries:
            digest = digest_of(entry) if entry.info.kind == kinds.FILE else _NO_CONTENT
            yield entry, find(_mark(entry, digest)) if digest is not None else None
        del find
        self._earlier = {}  # which takes as much memory as other things need next

    def _repeat(self, first: int, after: int) -> None:
        """Write entries of the earlier layer that lie side by side, from `first` to before `after`."""
        if first == after:
            return
        assert self._sink is not None
        spans = self._earlier_spans[2 * first : 2 * after]
        ahead = self._sink.total - spans[0]
        self._copy(spans[0], spans[-1])
        self._marks += self._earlier_marks[_MARK * first : _MARK * after]
        self._spans.extend([place + ahead for place in spans])

    def written(self, entry: Staged, digest: bytes | None, start: int) -> None:
        """Note an entry that was written, from `start` on."""
        assert self._sink is not None
        known = digest if entry.info.kind == kinds.FILE else _NO_CONTENT
        mark = _mark(entry, known) if known is not None else _NO_MARK
        if mark:
            self._marks += mark
            self._spans.append(start)
            self._spans.append(self._sink.total)

    def close(self) -> None:
        """Close the earlier layer's blob."""
        if self._file is not None:
            self._file.close()

    def keep(self, blob: LayerBlob) -> None:
        """Keep where the entries are, now that the layer is in the store."""
        index = self._sink.index if self._sink is not None else None
        if index is not None and len(self._spans) >= 2 * FEWEST:
            members = _Members(blob.diff_id, blob.digest, bytes(self._marks), self._spans.tobytes(), index)
            self._store.database.add_memo(_KIND, self._place, msgspec.msgpack.encode(members), holds=blob.diff_id)

    def _copy(self, start: int, end: int) -> None:
        """Write what is from `start` to before `end` of the earlier stream: whole blocks of it as they are."""
        blocks, sink = self._blocks, self._sink
        assert blocks is not None
        assert sink is not None
        if end > blocks.starts[-1]:
            raise Damaged("the layer is shorter than it was", place=self._place)
        while start < end:
            number = bisect_right(blocks.starts, start) - 1
            last = self._last(number, end) if start == blocks.starts[number] else number
            if last > number and sink.take_over(blocks, number, last):
                start = blocks.starts[last]
                continue
            if self._unpacked[0] != number:
                self._unpacked = (number, blocks.read(number, number + 1)[0])
            skipped = blocks.starts[number]
            stop = min(end, blocks.starts[number + 1])
            sink.write(self._unpacked[1][start - skipped : stop - skipped])
            start = stop

    def _last(self, number: int, end: int) -> int:
        """Where the blocks from `number` on end that `end` leaves whole, with the header behind each: at most as many
        as are taken at once. `number` itself if there is none."""
        assert self._blocks is not None
        starts = self._blocks.starts
        most = min(end - HEADER, starts[number] + _BATCH)
        return max(number, bisect_right(starts, most) - 1)


def _mark(entry: Staged, digest: bytes) -> bytes:
    """The mark of an entry; none for one whose bytes depend on more than that."""
    if entry.hardlink is not None or entry.xattrs:
        return _NO_MARK
    try:
        return xxhash.xxh3_128_digest(msgspec.msgpack.encode((entry.path, entry.info, digest)))
    except UnicodeEncodeError:  # a name that is not UTF-8
        return _NO_MARK
