"""Layers as tar streams: headers packed by hand, because `tarfile` spends 60 µs on what takes 3 here.

The format is POSIX ustar, with PAX records only where ustar cannot say it (long or non-ASCII names, big numbers, times
before 1970, extended attributes as `SCHILY.xattr.*`), which is what containerd writes too. Times are whole seconds,
user and group names are empty, directories end with a slash. Two zero blocks end the archive, and no padding to
10 KiB follows, as in Go's writer: an empty layer is 1,024 bytes and has the diff ID that the whole world knows.
Equal calls give equal bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from builder.errors import LayerError
from builder.filesystem import kinds
from builder.filesystem.append import LARGE, Append
from builder.filesystem.tree import FileInfo

BLOCK = 512
PIECE = 1 << 20
WHITEOUT_PREFIX = ".wh."
OPAQUE_MARKER = ".wh..wh..opq"
META_PREFIX = ".wh..wh."  # AUFS's own files, which containerd skips too

_NOTHING: Mapping[str, bytes] = MappingProxyType({})
_TYPES = {
    kinds.FILE: b"0", kinds.HARDLINK: b"1", kinds.SYMLINK: b"2", kinds.CHARACTER: b"3", kinds.BLOCK: b"4",
    kinds.DIRECTORY: b"5", kinds.FIFO: b"6",
}  # fmt: skip
_PAX = b"x"
_LONGEST_NAME = 255  # bytes: NAME_MAX
_HIDES = WHITEOUT_PREFIX.encode()
_MAX_ID = 0o7777777
_MAX_LONG = 0o77777777777  # sizes and times: eleven octal digits, 8 GiB
# What follows the link name: magic, version, user, group, device numbers, prefix, padding.
_MAGIC = b"ustar\x0000" + bytes(64)
_NO_DEVICE = b"0000000\x000000000\x00"
_TAIL = _MAGIC + _NO_DEVICE + bytes(167)
_TAIL_SUM = sum(_TAIL)
_ZEROS = bytes(BLOCK)
_WHITEOUT = FileInfo(kinds.FILE, 0)


def _header(
    name: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, kind: bytes, link: bytes, tail: bytes = _TAIL
) -> bytes:
    """One 512-byte header; every value must fit its field."""
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, mtime)
    total = sum(name) + sum(numbers) + sum(link) + kind[0] + (_TAIL_SUM if tail is _TAIL else sum(tail)) + 256
    return b"".join((name.ljust(100, b"\0"), numbers, b"%06o\0 " % total, kind, link.ljust(100, b"\0"), tail))


def _record(key: bytes, value: bytes) -> bytes:
    """A PAX record: its own length in decimal, a space, `key=value`, a newline."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


class TarWriter:
    """Writes a tar stream entry by entry.

    `write` is called with whole pieces in order; large files go through `append`, if there is one, else by pieces of at
    most `room()` bytes each. After an error the stream is unfinished: throw it away.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        append: Append | None = None,
        *,
        room: Callable[[], int] = lambda: PIECE,
    ) -> None:
        self._write = write
        self._append = append
        self._room = room

    def add(
        self,
        path: str,
        info: FileInfo,
        *,
        xattrs: Mapping[str, bytes] = _NOTHING,
        content: bytes | int | Iterable[bytes] | None = None,
        hardlink: str | None = None,
    ) -> None:
        """Add one entry.

        `path` has no slash at either end. `content` is a regular file's bytes, a descriptor at its start, or an
        iterable of pieces, and must hold exactly `info.size` bytes. `hardlink` is the path of an earlier entry; then
        `info` only gives owner, mode and time. Raises LayerError when the file's size changes while it is read, when
        the entry has no form in a tar archive (a socket, a whiteout: see `whiteout`), or when nobody could unpack it.
        """
        kind = kinds.HARDLINK if hardlink is not None else info.kind
        type_flag = _TYPES.get(kind)
        if type_flag is None:
            raise LayerError(f"a {kinds.word(kind)} cannot be stored in a layer", place=path)
        name = path.encode("utf-8", "surrogateescape")
        link = b""
        size = 0
        if kind == kinds.FILE:
            size = info.size
        elif kind == kinds.DIRECTORY:
            name += b"/"
        elif kind == kinds.HARDLINK and hardlink is not None:
            link = hardlink.encode("utf-8", "surrogateescape")
        elif kind == kinds.SYMLINK:
            link = info.link.encode("utf-8", "surrogateescape")
        mtime = info.mtime_ns // 1_000_000_000
        plain = (
            not xattrs
            and len(name) <= 100
            and len(link) <= 100
            and name.isascii()
            and link.isascii()
            and info.uid <= _MAX_ID
            and info.gid <= _MAX_ID
            and size <= _MAX_LONG
            and 0 <= mtime <= _MAX_LONG
        )
        if plain and info.device == (0, 0):
            header = _header(name, info.mode, info.uid, info.gid, size, mtime, type_flag, link)
        else:
            header = self._extended(path, name, link, info, size, mtime, type_flag, xattrs)
        if kind != kinds.FILE:
            self._write(header)
        elif type(content) is int:
            self._file(path, header, size, content)
        elif content is not None and not isinstance(content, (bytes, int)):
            self._pieces(path, header, size, content)
        else:
            data = content or b""
            assert isinstance(data, bytes)
            if len(data) != size:
                raise LayerError(f"has {len(data)} bytes where {size} were expected", place=path)
            self._write(b"".join((header, data, _ZEROS[: -size % BLOCK])))

    def whiteout(self, path: str) -> None:
        """Say that `path` of the layers below is gone."""
        directory, _, name = path.rpartition("/")
        self.add(f"{directory}/{WHITEOUT_PREFIX}{name}" if directory else WHITEOUT_PREFIX + name, _WHITEOUT)

    def opaque(self, directory: str) -> None:
        """Say that nothing in `directory` of the layers below is left."""
        self.add(f"{directory}/{OPAQUE_MARKER}" if directory else OPAQUE_MARKER, _WHITEOUT)

    def close(self) -> None:
        """Write the end of the archive."""
        self._write(_ZEROS * 2)

    def _file(self, path: str, header: bytes, size: int, descriptor: int) -> None:
        if size <= PIECE:
            data = os.read(descriptor, size + 1)
            if len(data) != size:
                raise _changed(path, size)
            self._write(b"".join((header, data, _ZEROS[: -size % BLOCK])))
            return
        self._write(header)
        if self._append is not None and size >= LARGE:
            found = self._append(descriptor, size) + len(os.pread(descriptor, 1, size))
        else:
            found = self._through(descriptor, size)
        if found != size:
            raise _changed(path, size)
        if size % BLOCK:
            self._write(_ZEROS[: -size % BLOCK])

    def _through(self, descriptor: int, size: int) -> int:
        """Write a file of `size` bytes by pieces. Returns how many it has, as far as that was looked at."""
        left = size
        while left:
            data = os.read(descriptor, min(left, self._room()))
            if not data:
                return size - left
            left -= len(data)
            self._write(data)
        return size + len(os.read(descriptor, 1))

    def _pieces(self, path: str, header: bytes, size: int, content: Iterable[bytes]) -> None:
        self._write(header)
        left = size
        for piece in content:
            left -= len(piece)
            if left < 0:
                raise _changed(path, size)
            self._write(piece)
        if left:
            raise _changed(path, size)
        if size % BLOCK:
            self._write(_ZEROS[: -size % BLOCK])

    def _extended(
        self,
        path: str,
        name: bytes,
        link: bytes,
        info: FileInfo,
        size: int,
        mtime: int,
        type_flag: bytes,
        xattrs: Mapping[str, bytes],
    ) -> bytes:
        """A header for what the plain form cannot hold, preceded by a PAX header where needed."""
        if b"\0" in name or b"\0" in link:
            raise LayerError("a name holds a NUL byte", place=path)
        if len(name) > _LONGEST_NAME:
            _check_names(path, name)
        records: dict[bytes, bytes] = {}
        prefix = b""
        short = name
        if len(name) > 100:
            cut = name.find(b"/", len(name) - 101)
            if 0 < cut <= 155 and cut < len(name) - 1 and name.isascii():
                prefix, short = name[:cut], name[cut + 1 :]
            else:
                records[b"path"] = name
                short = name[:100]
        elif not name.isascii() and _is_utf8(name):
            # A name that is not UTF-8 has no lawful form in PAX; where it fits ustar, every reader takes it as bytes.
            records[b"path"] = name
        if len(link) > 100 or (not link.isascii() and _is_utf8(link)):
            records[b"linkpath"] = link
            link = link[:100]
        uid, gid = info.uid, info.gid
        if uid > _MAX_ID:
            records[b"uid"], uid = b"%d" % uid, 0
        if gid > _MAX_ID:
            records[b"gid"], gid = b"%d" % gid, 0
        if size > _MAX_LONG:
            records[b"size"], size = b"%d" % size, 0
        if not 0 <= mtime <= _MAX_LONG:
            records[b"mtime"], mtime = b"%d" % mtime, 0
        for key, value in xattrs.items():
            if "=" in key:
                raise LayerError(f"the attribute {key!r} cannot be stored in a layer", place=path)
            records[b"SCHILY.xattr." + key.encode("utf-8", "surrogateescape")] = value
        device = _NO_DEVICE if info.device == (0, 0) else b"%07o\0%07o\0" % info.device
        tail = _MAGIC + device + prefix.ljust(155, b"\0") + bytes(12)
        header = _header(short, info.mode, uid, gid, size, mtime, type_flag, link, tail)
        if not records:
            return header
        body = b"".join(_record(key, records[key]) for key in sorted(records))
        directory, _, base = name.rstrip(b"/").rpartition(b"/")
        pax_name = b"/".join((directory, b"PaxHeaders.0", base)).lstrip(b"/")
        if len(pax_name) > 100 or not pax_name.isascii():
            pax_name = b"PaxHeaders.0/long"
        return b"".join(
            (_header(pax_name, 0, 0, 0, len(body), 0, _PAX, b""), body, _ZEROS[: -len(body) % BLOCK], header)
        )


def _check_names(path: str, name: bytes) -> None:
    """Refuse what no file system of Linux could hold; a whiteout's name is longer than the one that it hides."""
    longest = max(len(part.removeprefix(_HIDES)) for part in name.split(b"/"))
    if longest > _LONGEST_NAME:
        raise LayerError(
            f"one of its names has {longest} bytes, and file systems allow {_LONGEST_NAME}", place=f"/{path}"
        )


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _changed(path: str, size: int) -> LayerError:
    return LayerError(
        f"changed while it was read: it no longer has {size} bytes",
        place=path,
        remedy="build again when nothing writes to it",
    )
