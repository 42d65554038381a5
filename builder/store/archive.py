"""Reading an image archive from a stream, whatever its order: every file goes to a private temporary file and is hashed
on its way there.

The names in an archive are only looked up among themselves; none ever becomes a path of the host. A blob that the
store has already is not written again.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Callable

import msgspec

from builder.config import ArchiveLimits
from builder.errors import LayerError, StoreError
from builder.filesystem import kinds
from builder.filesystem.archive import ArchiveEntry, read_archive
from builder.filesystem.decompress import decompressor
from builder.filesystem.readable import Readable
from builder.oci.layout import Layout

_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_MOST_LINKS = 16
_LARGEST_DOCUMENT = 16 << 20  # bytes

Progress = Callable[[int], object]
"""Told of the bytes of content read so far."""


class Piece(msgspec.Struct, frozen=True):
    """A file of an archive: where its bytes are on this machine, their digest, their number; `stored` if that is a
    blob of the store."""

    path: str
    digest: str
    size: int
    stored: bool = False


class Contents:
    """The files of an archive by their names in it. `place` is what errors call the archive."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.files: dict[str, Piece] = {}
        self.links: dict[str, str] = {}

    def find(self, name: str) -> Piece | None:
        """The file `name`, through links."""
        for _ in range(_MOST_LINKS):
            if name in self.files:
                return self.files[name]
            if name not in self.links:
                return None
            name = self.links[name]
        return None

    def blob(self, digest: str) -> Piece | None:
        return self.find("blobs/" + digest.replace(":", "/", 1))

    def document(self, name: str, piece: Piece | None) -> bytes:
        """A JSON file's bytes. Raises LayerError when it is missing or too large."""
        if piece is None:
            raise LayerError(f"the archive has no {name}", place=self.place)
        if piece.size > _LARGEST_DOCUMENT:
            raise LayerError(f"{name} is larger than {_LARGEST_DOCUMENT >> 20} MiB", place=self.place)
        with open(piece.path, "rb") as file:
            return file.read()


def read_contents(
    stream: Readable,
    layout: Layout,
    scratch: str,
    *,
    place: str,
    progress: Progress | None = None,
    limits: ArchiveLimits | None = None,
) -> Contents:
    """Read the archive into `scratch`, whatever its compression. Raises LayerError for one that is malformed, that is
    larger than the limits, or that has a blob whose content is not what its name says."""
    contents = Contents(place)
    limits = limits or ArchiveLimits()
    done = 0
    archive = read_archive(decompressor(stream, limits=limits, place=place), max_entries=limits.entries or None)
    for number, entry in enumerate(archive, 1):
        if limits.load_entries and number > limits.load_entries:
            raise LayerError(
                f"the archive has more than {limits.load_entries} entries",
                place=place,
                remedy=limits.remedy("load_entries"),
            )
        name = entry.path
        if entry.info.kind == kinds.FILE:
            contents.links.pop(name, None)
            contents.files[name] = _file(entry, layout, os.path.join(scratch, str(len(contents.files))))
            done += entry.info.size
            if progress is not None:
                progress(done)
        elif entry.info.kind == kinds.SYMLINK or entry.hardlink is not None:
            target = entry.hardlink or posixpath.join(posixpath.dirname(name), entry.info.link)
            contents.files.pop(name, None)
            contents.links[name] = posixpath.normpath(target)
    return contents


def _file(entry: ArchiveEntry, layout: Layout, path: str) -> Piece:
    match = _BLOB.fullmatch(entry.path)
    digest = f"sha256:{match[1]}" if match else ""
    if digest and layout.has(digest):
        stored = layout.blob_path(digest)
        return Piece(stored, digest, os.stat(stored).st_size, stored=True)
    hasher = hashlib.sha256()
    try:
        with open(f"{path}.{os.urandom(4).hex()}", "xb") as file:
            for chunk in entry.content.chunks():
                hasher.update(chunk)
                file.write(chunk)
    except OSError as error:
        raise StoreError(f"cannot unpack the archive: {error.strerror}", place=layout.path) from error
    found = f"sha256:{hasher.hexdigest()}"
    if digest and found != digest:
        raise LayerError(f"the blob's content is {found}", place=entry.path, remedy="the archive is damaged or forged")
    return Piece(file.name, found, entry.info.size)
