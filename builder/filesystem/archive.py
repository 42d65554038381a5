"""Reading tar archives: a small strict reader for layers, ADD archives and tar contexts.

It reads old V7, ustar, PAX and GNU headers (long names, base-256 numbers), verifies checksums, and refuses what it
does not know (GNU sparse files, multi-volume archives) instead of guessing. Global PAX headers are skipped, as Go's
reader does. Names are cleaned: what is absolute or climbs with `..` ends inside the root (`/../../etc` is `etc`).
The content of entries is never copied more than once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from builder.config import ArchiveLimits
from builder.errors import LayerError
from builder.filesystem import kinds
from builder.filesystem import tar_fields as fields
from builder.filesystem.readable import Readable
from builder.filesystem.tree import FileInfo

CHUNK = 1 << 20
LONGEST_PATH = 4095  # Linux's limit; also bounds how deep a tree can be made with few bytes
MAX_EXTENSION = 1 << 20  # bytes of one PAX or long-name header; Go's limit
_PATH_BYTES = 256 << 20
"""Bytes of all paths of one archive, which are kept while it is read; for those who allow more entries than by default
128 for each."""

NAMELESS = "archive"
"""The place of an error before the first name in an archive."""
_BLOCK = 512
_EMPTY = bytes(_BLOCK)
_KINDS = {
    b"0": kinds.FILE, b"\0": kinds.FILE, b"7": kinds.FILE, b"1": kinds.HARDLINK, b"2": kinds.SYMLINK,
    b"3": kinds.CHARACTER, b"4": kinds.BLOCK, b"5": kinds.DIRECTORY, b"6": kinds.FIFO,
}  # fmt: skip
_EXTENSIONS = frozenset((b"x", b"g", b"L", b"K"))
_REFUSED = {b"S": "a GNU sparse file", b"M": "a part of a multi-volume archive", b"D": "a GNU incremental directory"}
_NOBODY = (1 << 32) - 1  # what chown(2) takes for "leave it"
_MAJORS, _MINORS = 1 << 12, 1 << 20  # Linux, include/linux/kdev_t.h
_LATEST = 1 << 63  # nanoseconds; a time further off counts as the epoch


class Content:
    """The bytes of the current entry of a `TarReader`; good until the next entry is asked for."""

    __slots__ = ("_reader", "left", "place")

    def __init__(self, reader: TarReader, size: int, place: str) -> None:
        self._reader = reader
        self.left = size
        self.place = place

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes (all that is left when negative); b"" at the end."""
        pieces = []
        wanted = self.left if size < 0 else min(size, self.left)
        while wanted:
            piece = self._reader.some(wanted, self.place)
            wanted -= len(piece)
            self.left -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def chunks(self) -> Iterator[memoryview]:
        """All that is left, in pieces of at most 1 MiB, without a copy."""
        while self.left:
            piece = self._reader.some(self.left, self.place)
            self.left -= len(piece)
            yield piece


class ArchiveEntry(msgspec.Struct):
    """One entry. `path` is clean (`""` the root); `hardlink` the clean path of a hard link's target, for which
    `info.kind` is HARDLINK; `content` a regular file's bytes."""

    path: str
    info: FileInfo
    xattrs: dict[str, bytes]
    content: Content
    hardlink: str | None = None


def pieces(stream: Readable) -> Iterator[bytes]:
    """A stream as chunks of at most 1 MiB."""
    while chunk := stream.read(CHUNK):
        yield chunk


def read_archive(stream: Readable, *, max_entries: int | None = None) -> Iterator[ArchiveEntry]:
    """The entries of an uncompressed tar stream, in its order.

    Raises LayerError for a malformed, truncated or too large archive; the error's place is the entry's name.
    """
    return iter(TarReader(pieces(stream), max_entries=max_entries))


def clean(name: str) -> str:
    """A path as it counts inside the root: no empty, `.` or `..` components, no slash at the ends."""
    if name.startswith("./"):  # as most archives write a clean path
        name = name[2:]
    if name.endswith("/"):
        name = name[:-1]
    if name[:1] not in "./" and name[-1:] != "/" and "/." not in name and "//" not in name:
        return name
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if parts:
                parts.pop()
        elif part and part != ".":
            parts.append(part)
    return "/".join(parts)


def _climbs(name: str) -> bool:
    return ".." in name and ".." in name.split("/")


class TarReader:
    """Iterates over the entries of a tar archive that comes in chunks of any size.

    With `strict_names` a name, or a hard link's target, that climbs with `..` is refused instead of cleaned.
    """

    def __init__(self, chunks: Iterable[bytes], *, max_entries: int | None = None, strict_names: bool = False) -> None:
        self._chunks = iter(chunks)
        self._chunk = memoryview(b"")
        self._position = 0
        self._last = ""
        self._max_entries = max_entries
        self._most_path_bytes = None if max_entries is None else max(_PATH_BYTES, 128 * max_entries)
        self._path_bytes = 0
        self._strict_names = strict_names
        self.entries = 0

    def some(self, size: int, place: str) -> memoryview:
        """Between one and `size` (> 0) bytes. Raises LayerError at the end of the stream."""
        start = self._position
        piece = self._chunk[start : start + size]
        if not piece:
            if not self._next_chunk():
                raise LayerError("the archive is truncated", place=place)
            piece = self._chunk[:size]
            start = 0
        self._position = start + len(piece)
        return piece

    def drain(self) -> None:
        """Read what follows the end of the archive, so that a digest of the stream is of all of it."""
        self._position = len(self._chunk)
        while self._next_chunk():
            pass

    def __iter__(self) -> Iterator[ArchiveEntry]:
        long_name: bytes | None = None
        long_link: bytes | None = None
        pax: dict[bytes, bytes] = {}
        while (header := self._header()) is not None:
            kind = header[156:157]
            numbers = fields.usual_numbers(header)
            size = numbers[3] if numbers else fields.number(header[124:136], "size", self._place(header))
            if kind in _EXTENSIONS:
                body = self._extension(size, header)
                if kind == b"x":
                    pax = fields.records(body, self._place(header))
                elif kind == b"L":
                    long_name = body.rstrip(b"\0")
                elif kind == b"K":
                    long_link = body.rstrip(b"\0")
                continue
            entry = self._entry(header, kind, size, numbers, long_name, long_link, pax)
            long_name, long_link, pax = None, None, {}
            padding = -entry.info.size % _BLOCK
            yield entry
            left, entry.content.left = entry.content.left + padding, 0
            if left:
                self._skip(left, entry.path)
        if pax or long_name is not None or long_link is not None:
            raise LayerError("the archive is truncated: an extended header has no entry", place=self._last or None)

    def _entry(
        self,
        header: bytes,
        type_flag: bytes,
        size: int,
        numbers: tuple[int, int, int, int, int] | None,
        long_name: bytes | None,
        long_link: bytes | None,
        pax: dict[bytes, bytes],
    ) -> ArchiveEntry:
        raw_name = pax.get(b"path") or long_name or fields.raw_name(header)
        raw_link = pax.get(b"linkpath") or long_link or header[157:257].partition(b"\0")[0]
        name = raw_name.decode("utf-8", "surrogateescape")
        link = raw_link.decode("utf-8", "surrogateescape")
        self._last = place = name or self._place(header)
        if len(raw_name) > LONGEST_PATH:
            raise LayerError(f"its path has {len(raw_name)} bytes, more than {LONGEST_PATH}", place=f"{name[:60]}…")
        if b"\0" in raw_name or b"\0" in raw_link:
            raise LayerError("a name holds a NUL byte", place=place.replace("\0", "\\0"))
        kind = _KINDS.get(type_flag)
        if self._strict_names and (_climbs(name) or (kind == kinds.HARDLINK and _climbs(link))):
            raise LayerError("leads out of the archive", place=place)
        if kind is None:
            what = _REFUSED.get(type_flag, f"of the unknown type {type_flag.decode('latin-1')!r}")
            raise LayerError(f"is {what}, which is not supported", place=place)
        if kind == kinds.FILE and raw_name.endswith(b"/"):
            kind = kinds.DIRECTORY
        if numbers is not None:
            mode, uid, gid, _, mtime = numbers
        else:
            mode = fields.number(header[100:108], "mode", place)
            uid = fields.number(header[108:116], "uid", place)
            gid = fields.number(header[116:124], "gid", place)
            mtime = fields.number(header[136:148], "mtime", place)
        mtime *= 1_000_000_000
        xattrs: dict[str, bytes] = {}
        if pax:
            size = fields.integer(pax, b"size", size, place)
            uid = fields.integer(pax, b"uid", uid, place)
            gid = fields.integer(pax, b"gid", gid, place)
            if pax.get(b"mtime"):
                mtime = fields.nanoseconds(pax[b"mtime"], place)
            for key, value in pax.items():
                if key.startswith(b"SCHILY.xattr."):
                    if b"\0" in key:
                        raise LayerError("an attribute's name holds a NUL byte", place=place)
                    xattrs[key[13:].decode("utf-8", "surrogateescape")] = value
                elif key.startswith(b"GNU.sparse."):
                    raise LayerError("is a GNU sparse file, which is not supported", place=place)
        if kind != kinds.FILE:
            size = 0
        if size < 0 or not 0 <= uid < _NOBODY or not 0 <= gid < _NOBODY:
            raise LayerError("has a negative size, or an owner that there cannot be", place=place)
        device = (0, 0)
        if kind == kinds.CHARACTER or kind == kinds.BLOCK:
            major = fields.number(header[329:337], "device", place)
            device = (major, fields.number(header[337:345], "device", place))
            if not (0 <= device[0] < _MAJORS and 0 <= device[1] < _MINORS):
                raise LayerError("has device numbers that there cannot be", place=place)
        self._count(place, len(raw_name) + (len(raw_link) if kind == kinds.HARDLINK else 0))
        info = FileInfo(
            kind, mode & 0o7777, uid, gid, size, mtime if -_LATEST < mtime < _LATEST else 0,
            link if kind == kinds.SYMLINK else "", device,
        )  # fmt: skip
        hardlink = clean(link) if kind == kinds.HARDLINK else None
        return ArchiveEntry(clean(name), info, xattrs, Content(self, size, place), hardlink)

    def _count(self, place: str, path_bytes: int) -> None:
        self.entries += 1
        if self._max_entries is not None and self.entries > self._max_entries:
            cause = f"the archive has more than {self._max_entries} entries"
            raise LayerError(cause, place=place, remedy=ArchiveLimits.remedy("entries"))
        self._path_bytes += path_bytes
        if self._most_path_bytes is not None and self._path_bytes > self._most_path_bytes:
            cause = f"the paths in the archive have more than {self._most_path_bytes} bytes"
            raise LayerError(cause, place=place[:100], remedy=ArchiveLimits.remedy("entries"))

    def _place(self, header: bytes) -> str:
        return fields.raw_name(header).decode("utf-8", "backslashreplace") or self._last or NAMELESS

    def _header(self) -> bytes | None:
        """The next header block, or None at the end of the archive."""
        start = self._position
        block = bytes(self._chunk[start : start + _BLOCK])
        if len(block) == _BLOCK:
            self._position = start + _BLOCK
        else:
            if not block and not self._next_chunk():
                return None  # no zero blocks at the end: readers accept that
            block = self._exactly(_BLOCK, self._last or NAMELESS)
        if block == _EMPTY:
            return None
        field = block[148:156]
        digits = field.strip(b" \0")
        stated = int(digits, 8) if digits.isdigit() and not digits.translate(None, b"01234567") else -1
        total = sum(block.translate(None, b"\0")) - sum(field) + 256
        # Historic writers summed signed bytes.
        if stated != total and stated != total - 256 * sum(byte > 127 for byte in block[:148] + block[156:]):
            after = f" (after {self._last})" if self._last else ""
            raise LayerError(f"this is no tar archive, or it is damaged: a header's checksum is wrong{after}")
        return block

    def _extension(self, size: int, header: bytes) -> bytes:
        if not 0 <= size <= MAX_EXTENSION:
            cause = f"an extended header has {size} bytes, more than {MAX_EXTENSION}"
            raise LayerError(cause, place=self._last or None)
        body = self._exactly(size, self._place(header))
        self._skip(-size % _BLOCK, self._place(header))
        return body

    def _exactly(self, size: int, place: str) -> bytes:
        parts = []
        while size:
            piece = self.some(size, place)
            size -= len(piece)
            parts.append(piece)
        return b"".join(parts)

    def _skip(self, size: int, place: str) -> None:
        while size:
            size -= len(self.some(size, place))

    def _next_chunk(self) -> bool:
        for chunk in self._chunks:
            if chunk:
                self._chunk = memoryview(chunk)
                self._position = 0
                return True
        self._chunk = memoryview(b"")
        self._position = 0
        return False
