"""Reading tar archives: a small strict reader for layers, ADD archives and tar contexts.

It reads old V7, ustar, PAX and GNU headers (long names, base-256 numbers), verifies checksums, and refuses what it
does not know (GNU sparse files, multi-volume archives) instead of guessing. Global PAX headers are skipped, as Go's
reader does. Names are cleaned: what is absolute or climbs with `..` ends inside the root (`/../../etc` is `etc`).
The content of entries is never copied more than once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NoReturn, Protocol

import msgspec

from builder.config import ArchiveLimits
from builder.errors import LayerError
from builder.filesystem.tree import FileInfo, Kind

CHUNK = 1 << 20
LONGEST_PATH = 4095  # Linux's limit; also bounds how deep a tree can be made with few bytes
MAX_EXTENSION = 1 << 20  # bytes of one PAX or long-name header; Go's limit

NAMELESS = "archive"
"""The place of an error before the first name in an archive."""
_KINDS = {
    b"0": Kind.FILE, b"\0": Kind.FILE, b"7": Kind.FILE, b"1": Kind.HARDLINK, b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER, b"4": Kind.BLOCK, b"5": Kind.DIRECTORY, b"6": Kind.FIFO,
}  # fmt: skip
_REFUSED = {b"S": "a GNU sparse file", b"M": "a part of a multi-volume archive", b"D": "a GNU incremental directory"}
_UNCLEAN = re.compile(r"(?:^|/)(?:\.{0,2})(?:/|$)")
_DECIMAL = re.compile(rb"([+-]?)(\d{1,18})(?:\.(\d*))?")
_LATEST = 1 << 63  # nanoseconds; a time further off counts as the epoch


class Readable(Protocol):
    """What this package reads streams through: `read(n)` gives at most `n` bytes, and b"" only at the end."""

    def read(self, size: int, /) -> bytes: ...


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


def read_archive(
    stream: Readable, *, max_entries: int | None = None, max_bytes: int | None = None
) -> Iterator[ArchiveEntry]:
    """The entries of an uncompressed tar stream, in its order. `max_bytes` bounds the sum of the file sizes.

    Raises LayerError for a malformed, truncated or too large archive; the error's place is the entry's name.
    """
    return iter(TarReader(pieces(stream), max_entries=max_entries, max_bytes=max_bytes))


def clean(name: str) -> str:
    """A path as it counts inside the root: no empty, `.` or `..` components, no slash at the ends."""
    if not _UNCLEAN.search(name):
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

    def __init__(
        self,
        chunks: Iterable[bytes],
        *,
        max_entries: int | None = None,
        max_bytes: int | None = None,
        strict_names: bool = False,
    ) -> None:
        self._chunks = iter(chunks)
        self._chunk = memoryview(b"")
        self._position = 0
        self._last = ""
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._strict_names = strict_names
        self.entries = 0
        self.bytes = 0

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
            size = _number(header[124:136], "size", self._place(header))
            if kind in b"xgLK":
                body = self._extension(size, header)
                if kind == b"x":
                    pax = _records(body, self._place(header))
                elif kind == b"L":
                    long_name = body.rstrip(b"\0")
                elif kind == b"K":
                    long_link = body.rstrip(b"\0")
                continue
            entry = self._entry(header, kind, size, long_name, long_link, pax)
            long_name, long_link, pax = None, None, {}
            padding = -entry.info.size % 512
            yield entry
            self._skip(entry.content.left, entry.path)
            entry.content.left = 0
            self._skip(padding, entry.path)
        if pax or long_name is not None or long_link is not None:
            raise LayerError("the archive is truncated: an extended header has no entry", place=self._last or None)

    def _entry(
        self,
        header: bytes,
        type_flag: bytes,
        size: int,
        long_name: bytes | None,
        long_link: bytes | None,
        pax: dict[bytes, bytes],
    ) -> ArchiveEntry:
        place = self._place(header)
        raw_name = pax.get(b"path") or long_name or _raw_name(header)
        raw_link = pax.get(b"linkpath") or long_link or header[157:257].partition(b"\0")[0]
        name = raw_name.decode("utf-8", "surrogateescape")
        link = raw_link.decode("utf-8", "surrogateescape")
        self._last = place = name or place
        if len(raw_name) > LONGEST_PATH:
            raise LayerError(f"its path has {len(raw_name)} bytes, more than {LONGEST_PATH}", place=f"{name[:60]}…")
        if b"\0" in raw_name or b"\0" in raw_link:
            raise LayerError("a name holds a NUL byte", place=place.replace("\0", "\\0"))
        kind = _KINDS.get(type_flag)
        if self._strict_names and (_climbs(name) or (kind is Kind.HARDLINK and _climbs(link))):
            raise LayerError("leads out of the archive", place=place)
        if kind is None:
            what = _REFUSED.get(type_flag, f"of the unknown type {type_flag.decode('latin-1')!r}")
            raise LayerError(f"is {what}, which is not supported", place=place)
        if kind is Kind.FILE and raw_name.endswith(b"/"):
            kind = Kind.DIRECTORY
        mode = _number(header[100:108], "mode", place) & 0o7777
        uid = _number(header[108:116], "uid", place)
        gid = _number(header[116:124], "gid", place)
        mtime = _number(header[136:148], "mtime", place) * 1_000_000_000
        xattrs: dict[str, bytes] = {}
        if pax:
            size = _integer(pax, b"size", size, place)
            uid = _integer(pax, b"uid", uid, place)
            gid = _integer(pax, b"gid", gid, place)
            if pax.get(b"mtime"):
                mtime = _nanoseconds(pax[b"mtime"], place)
            for key, value in pax.items():
                if key.startswith(b"SCHILY.xattr."):
                    xattrs[key[13:].decode("utf-8", "surrogateescape")] = value
                elif key.startswith(b"GNU.sparse."):
                    raise LayerError("is a GNU sparse file, which is not supported", place=place)
        if kind is not Kind.FILE:
            size = 0
        if size < 0 or uid < 0 or gid < 0:
            raise LayerError("has a negative size or owner", place=place)
        device = (0, 0)
        if kind is Kind.CHARACTER or kind is Kind.BLOCK:
            device = (_number(header[329:337], "device", place), _number(header[337:345], "device", place))
        self._count(size, place)
        info = FileInfo(
            kind, mode, uid, gid, size, mtime if -_LATEST < mtime < _LATEST else 0,
            link if kind is Kind.SYMLINK else "", device,
        )  # fmt: skip
        hardlink = clean(link) if kind is Kind.HARDLINK else None
        return ArchiveEntry(clean(name), info, xattrs, Content(self, size, place), hardlink)

    def _count(self, size: int, place: str) -> None:
        self.entries += 1
        self.bytes += size
        if self._max_entries is not None and self.entries > self._max_entries:
            raise LayerError(
                f"the archive has more than {self._max_entries} entries",
                place=place,
                remedy=ArchiveLimits.remedy("entries"),
            )
        if self._max_bytes is not None and self.bytes > self._max_bytes:
            raise LayerError(
                f"the archive's files have more than {self._max_bytes} bytes",
                place=place,
                remedy=ArchiveLimits.remedy("size"),
            )

    def _place(self, header: bytes) -> str:
        return _raw_name(header).decode("utf-8", "backslashreplace") or self._last or NAMELESS

    def _header(self) -> bytes | None:
        """The next header block, or None at the end of the archive."""
        start = self._position
        block = bytes(self._chunk[start : start + 512])
        if len(block) == 512:
            self._position = start + 512
        else:
            if not block and not self._next_chunk():
                return None  # no zero blocks at the end: readers accept that
            block = self._exactly(512, self._last or NAMELESS)
        used = block.replace(b"\0", b"")
        if not used:
            return None
        field = block[148:156]
        digits = field.strip(b" \0")
        stated = int(digits, 8) if digits.isdigit() and not digits.translate(None, b"01234567") else -1
        total = sum(used) - sum(field) + 256
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
        self._skip(-size % 512, self._place(header))
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


def _raw_name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    # Only POSIX ustar has a prefix; the GNU format keeps times there.
    if header[257:263] == b"ustar\0" and header[345]:
        return header[345:500].partition(b"\0")[0] + b"/" + name
    return name


def _number(field: bytes, what: str, place: str) -> int:
    """An octal number, or a base-256 one where the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") - ((field[0] & 0x80) << (8 * (len(field) - 1)))
        # The second bit is the sign (0xff… is negative).
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    digits = field.strip(b" \0").partition(b"\0")[0].rstrip(b" ")
    if not digits:
        return 0
    if digits.translate(None, b"01234567"):
        _malformed(what, digits, place)
    return int(digits, 8)


def _records(body: bytes, place: str) -> dict[bytes, bytes]:
    """The records of a PAX header."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(body):
        space = body.find(b" ", position, position + 21)
        digits = body[position:space] if space > 0 else b""
        end = position + int(digits) if digits.isdigit() else 0
        key, equals, value = body[space + 1 : end - 1].partition(b"=")
        if end <= space + 1 or end > len(body) or body[end - 1] != 0x0A or not equals or not key:
            raise LayerError("an extended header is malformed", place=place)
        records[key] = value
        position = end
    return records


def _integer(pax: dict[bytes, bytes], key: bytes, default: int, place: str) -> int:
    value = pax.get(key)
    if not value:
        return default
    if not value.isdigit() or len(value) > 19:
        _malformed(key.decode(), value, place)
    return int(value)


def _nanoseconds(value: bytes, place: str) -> int:
    match = _DECIMAL.fullmatch(value)
    if match is None:
        _malformed("mtime", value, place)
    sign, seconds, fraction = match.groups()
    total = int(seconds) * 1_000_000_000 + int((fraction or b"")[:9].ljust(9, b"0"))
    return -total if sign == b"-" else total


def _malformed(what: str, value: bytes, place: str) -> NoReturn:
    raise LayerError(f"the {what} {value.decode('latin-1')!r} in its header is malformed", place=place)
