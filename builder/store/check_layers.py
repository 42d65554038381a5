"""Do the blobs that stand for layers hold those layers?

A layer's diff ID is the digest of its uncompressed archive (image-spec, `config.md`). Image configurations and the
cache database state it beside the digest of the blob, which says nothing about what the blob becomes uncompressed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import BinaryIO

import msgspec

from builder.config import ArchiveLimits
from builder.errors import LayerError
from builder.filesystem.decompress import decompressor
from builder.oci.spec import Descriptor
from builder.store.check_session import Session
from builder.store.collect import Needed, Walker

_PIECE = 1 << 20


class Content(msgspec.Struct, frozen=True):
    """What a blob holds: the digest and the size in bytes of what it becomes uncompressed; `fault` is why that cannot
    be told, '' if it can."""

    diff_id: str = ""
    size: int = 0
    fault: str = ""


class HashedFile:
    """The bytes of a file, hashed while they are read; `advance` is told how many came."""

    def __init__(self, file: BinaryIO, advance: Callable[[int], None]) -> None:
        self.size = 0
        self._file = file
        self._advance = advance
        self._hasher = hashlib.sha256()
        self._piece = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; b"" at the end. Decompressors ask for little at a time, the file is read in pieces."""
        if not self._piece:
            self._fill()
        taken, self._piece = self._piece[:size], self._piece[size:]
        return bytes(taken)

    def finish(self) -> str:
        """The digest of the whole file, of which the rest is read now."""
        while self._fill():
            pass
        return f"sha256:{self._hasher.hexdigest()}"

    def _fill(self) -> int:
        piece = self._file.read(_PIECE)
        self._hasher.update(piece)
        self.size += len(piece)
        self._advance(len(piece))
        self._piece = memoryview(piece)
        return len(piece)


def uncompressed(blob: HashedFile, place: str, limits: ArchiveLimits) -> Content:
    """What a blob becomes uncompressed; it may be left unread where it is damaged or larger than the limits."""
    reader = decompressor(blob, limits=limits, place=place)
    if reader.compression == "uncompressed":
        return Content(blob.finish(), blob.size)
    hasher = hashlib.sha256()
    try:
        while piece := reader.read(_PIECE):
            hasher.update(piece)
    except LayerError as error:
        return Content(fault=error.cause)
    return Content(f"sha256:{hasher.hexdigest()}", reader.total)


def layer_blobs(session: Session) -> set[str]:
    """The blobs that an image or the cache database calls a layer."""
    found = {record.digest for record in session.records}
    if session.path("index.json") not in session.damaged:
        reached = Needed()
        walker = Walker(session.layout, lenient=True)
        walker.reach([entry.digest for entry in session.layout.index().manifests], reached)
        for digest in reached.blobs:
            found.update(walker.layers(digest))
    return found


def content(session: Session, digest: str) -> Content:
    """What a layer's blob, which is here, holds. It was found out with the digest, unless the blob came since."""
    known = session.contents.get(digest)
    if known is None:
        with open(session.layout.blob_path(digest), "rb", buffering=0) as file:
            known = uncompressed(HashedFile(file, lambda _: None), digest, session.limits)
        session.contents[digest] = known
    return known


def content_fault(session: Session, layer: Descriptor, diff_id: str) -> str:
    """How a layer, whose blob is here, differs from its diff ID, as the end of a sentence; '' if it does not."""
    if layer.media_type.endswith("+encrypted"):
        return ""  # only who has the key can tell
    found = content(session, layer.digest)
    if found.fault:
        return f"{layer.digest} cannot be read: {found.fault}"
    return "" if found.diff_id == diff_id else f"{layer.digest} holds {found.diff_id} instead of {diff_id}"


def stack_fault(session: Session, layers: Sequence[Descriptor], diff_ids: Sequence[str]) -> str:
    """How a manifest's layers, which were all here, differ from its configuration's diff IDs; '' if they do not."""
    if len(layers) != len(diff_ids):
        return f"the configuration has {len(diff_ids)} diff IDs, the manifest {len(layers)} layers"
    for layer, diff_id in zip(layers, diff_ids, strict=True):
        try:
            fault = content_fault(session, layer, diff_id)
        except FileNotFoundError as error:  # the image was removed just now
            fault = f"{layer.digest} is missing: {error.strerror}"
        if fault:
            return f"the layer {fault}"
    return ""
