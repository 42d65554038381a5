"""From a layer's tar stream to an EROFS image, where the layer is plain.

Plain is what tools write: each directory before what is in it, each name once, links to files that came before, with
the same owner and time. Whatever else an archive may hold, `unpack` knows what it means; it is Unsuitable here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing

from builder.errors import store_error
from builder.filesystem import kinds
from builder.filesystem.archive import TarReader
from builder.filesystem.erofs_format import Unsuitable
from builder.filesystem.erofs_writer import Directory, ErofsWriter
from builder.filesystem.overlay_format import OPAQUE, OWN_PREFIXES
from builder.filesystem.readable import Readable
from builder.filesystem.readahead import ReadAhead
from builder.filesystem.tar import META_PREFIX, OPAQUE_MARKER, WHITEOUT_PREFIX
from builder.filesystem.tree import FileInfo
from builder.filesystem.unpack import Unpacked, failed

_WHITEOUT = FileInfo(kinds.CHARACTER, 0)


def write_erofs(stream: Readable, path: str, *, max_entries: int | None = None) -> Unpacked:
    """Write an uncompressed tar stream as the image of a layer into a new file, with overlayfs's whiteouts and marks.
    The bound is that of `unpack`. The whole stream is read. Raises Unsuitable, LayerError and StoreError; what was
    written stays."""
    with closing(ErofsLayer(path)) as image, ReadAhead(stream) as chunks:
        reader = TarReader(chunks, max_entries=max_entries)
        for entry in reader:
            try:
                for piece in entry.content.chunks():
                    image.write(piece)
                image.add(entry.path, entry.info, entry.xattrs, entry.hardlink)
            except OSError as error:
                raise failed(entry, error) from error
        reader.drain()
        try:
            image.finish()
        except OSError as error:
            raise store_error("a layer cannot be unpacked", error, path) from error
        return Unpacked(chunks.digest, reader.entries, chunks.size)


class ErofsLayer:
    """The image of a layer, written entry by entry into a new file: what may be in the layer's archive, in its order.
    Raises Unsuitable and OSError; what was written stays."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._image = ErofsWriter(self._file)
        self._directories: dict[str, Directory] = {"": self._image.root}
        self._xattrs: dict[str, Mapping[str, bytes]] = {}  # of directories that have any
        self._opaque: set[str] = set()
        self._last = ("", self._image.root)
        self.write = self._image.write
        """Writes a part of the content of the file that is added next."""

    def close(self) -> None:
        os.close(self._file)

    def add(self, path: str, info: FileInfo, xattrs: Mapping[str, bytes], hardlink: str | None = None) -> None:
        """Add an entry as `archive.ArchiveEntry` has it. What a file holds was written before."""
        above, _, name = path.rpartition("/")
        if xattrs:
            xattrs = {key: value for key, value in xattrs.items() if not key.startswith(OWN_PREFIXES)}
        if name.startswith(WHITEOUT_PREFIX):
            if info.size:  # it has been written
                raise Unsuitable
            self._hide(above, name)
        elif info.kind == kinds.DIRECTORY:
            self._add_directory(path, above, name, info, xattrs)
        elif hardlink is not None:
            directory, _, target = hardlink.rpartition("/")
            self._image.add_link(self._parent(above), _encoded(name), self._parent(directory), _encoded(target), info)
        elif name:
            self._image.add_file(self._parent(above), _encoded(name), info, xattrs)
        else:
            raise Unsuitable

    def finish(self) -> None:
        """Complete the image."""
        for path in self._opaque:
            directory = self._directories[path]
            self._image.change_directory(directory, directory.info, {**self._xattrs.get(path, {}), OPAQUE[0]: b"y"})
        self._image.finish()

    def _add_directory(self, path: str, above: str, name: str, info: FileInfo, xattrs: Mapping[str, bytes]) -> None:
        known = self._directories.get(path)
        if known is not None:
            self._image.change_directory(known, info, xattrs)
        else:
            self._directories[path] = self._image.add_directory(self._parent(above), _encoded(name), info, xattrs)
        if xattrs:
            self._xattrs[path] = xattrs

    def _parent(self, path: str) -> Directory:
        if path == self._last[0]:
            return self._last[1]
        found = self._directories.get(path)
        if found is None:  # it is left out, or leads elsewhere
            raise Unsuitable
        self._last = (path, found)
        return found

    def _hide(self, above: str, name: str) -> None:
        parent = self._parent(above)
        if name == OPAQUE_MARKER:
            self._opaque.add(above)
        elif not name.startswith(META_PREFIX):
            hidden = name[len(WHITEOUT_PREFIX) :]
            if hidden in ("", ".", ".."):
                raise Unsuitable
            self._image.add_file(parent, _encoded(hidden), _WHITEOUT, {})


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
