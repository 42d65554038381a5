"""From staged entries to a layer blob: each file is read once, for the tar and for its digest together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from builder.errors import BuilderError, LayerError, StoreError
from builder.filesystem import kinds
from builder.filesystem.compress import LayerBlob, LayerSink
from builder.filesystem.compression import Compression
from builder.filesystem.prefetch import NOTHING, prefetched
from builder.filesystem.tar import TarWriter
from builder.filesystem.tree import FileInfo
from builder.oci.digests import sha256
from builder.solver.staging import Content, Staged, Staging

if TYPE_CHECKING:
    from builder.solver.erofs_copy import ErofsCopy
    from builder.solver.recycle import Recycler
    from builder.solver.secrets import Guard

_PIECE = 1 << 20

Observe = Callable[[Staged, bytes], None]
"""Told of each file's content once it was read: the entry, and the SHA-256."""


def write_layer(
    staging: Staging,
    directory: str,
    *,
    compression: Compression | None = None,
    epoch: int | None = None,
    observe: Observe | None = None,
    guard: Guard | None = None,
    recycler: Recycler | None = None,
    erofs: ErofsCopy | None = None,
    meanwhile: Callable[[], object] | None = None,
) -> LayerBlob:
    """Write the layer that `staging` holds into a temporary file in `directory`.

    With `epoch` (seconds) no entry is younger than that. What `recycler` has is not read. `erofs` gets all that is
    read. `meanwhile` is called when all files are read, while threads still hash and compress. Raises LayerError when a
    file changes while it is read, Damaged when the recycler's layer is, and SecretLeak when `guard` finds a secret.
    """
    limit = None if epoch is None else epoch * 1_000_000_000
    form = compression or Compression()
    indexed = recycler is not None
    with LayerSink(directory, compression=form.kind, level=form.level, sync=False, indexed=indexed) as sink:
        with _writing_to(directory):
            writer = _EntryWriter(sink, guard, observe, erofs)
            entries = staging.entries()
            if limit is not None:
                entries = (_clamped(entry, limit) for entry in entries)
            if recycler is None:
                with closing(prefetched(entries, _open)) as opened:
                    for entry, descriptor in opened:
                        writer.write(entry, descriptor)
            else:
                with closing(recycler.take(entries, sink, _open)) as opened:
                    for entry, descriptor in opened:
                        start = sink.total
                        recycler.written(entry, writer.write(entry, descriptor), start)
            writer.close()
        if erofs is not None:
            erofs.finish()
        if meanwhile is not None:
            meanwhile()
        with _writing_to(directory):
            return sink.finish()


@contextmanager
def _writing_to(directory: str) -> Iterator[None]:
    """What the system refuses meanwhile, it refuses to the layer's file."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write a layer: {error.strerror}", place=directory) from error


def _clamped(entry: Staged, limit: int) -> Staged:
    info = entry.info
    if info.mtime_ns <= limit:
        return entry
    earlier = FileInfo(info.kind, info.mode, info.uid, info.gid, info.size, limit, info.link, info.device)
    return Staged(entry.path, earlier, entry.content, entry.xattrs, entry.hardlink)


def _to_read(entry: Staged) -> Content | None:
    """The content that is still to be read, if the entry has one."""
    if entry.info.kind != kinds.FILE or entry.hardlink is not None or isinstance(entry.content, bytes):
        return None
    return entry.content


def _open(entry: Staged) -> int:
    """A descriptor that stands where the content begins; NOTHING where none is to be read."""
    content = _to_read(entry)
    if content is None:
        return NOTHING
    try:
        return _open_content(content)
    except BuilderError:
        raise
    except OSError as error:
        raise LayerError(f"cannot be read: {error.strerror}", place=content.name) from error


def _open_content(content: Content) -> int:
    descriptor = content.open()
    if content.offset:
        os.lseek(descriptor, content.offset, os.SEEK_SET)
    return descriptor


class _EntryWriter:
    """Writes the entries of one layer; `observe` and `erofs` as for `write_layer`."""

    def __init__(self, sink: LayerSink, guard: Guard | None, observe: Observe | None, erofs: ErofsCopy | None) -> None:
        self._writer = guard.writer(sink.write) if guard is not None else TarWriter(sink.write)
        self._sink = sink
        self._observe = observe
        self._erofs = erofs

    def write(self, entry: Staged, descriptor: int) -> bytes | None:
        """Write an entry, for which `_open` gave `descriptor`; returns the SHA-256 of a file's content."""
        info, content = entry.info, entry.content
        digest = None
        if descriptor != NOTHING:
            digest = self._write_file(entry, descriptor)
        elif entry.hardlink is not None:
            self._writer.add(entry.path, info, hardlink=entry.hardlink)
        elif info.kind == kinds.FILE and isinstance(content, bytes):
            self._writer.add(entry.path, info, xattrs=entry.xattrs, content=content)
            digest = sha256(content).digest()
            if self._erofs is not None:
                self._erofs.write(content)
        else:
            self._writer.add(entry.path, info, xattrs=entry.xattrs)
        if self._erofs is not None:
            self._erofs.add(entry)
        if digest is not None and self._observe is not None:
            self._observe(entry, digest)
        return digest

    def close(self) -> None:
        """Write the archive's end."""
        self._writer.close()

    def _write_file(self, entry: Staged, descriptor: int) -> bytes:
        info, content = entry.info, _to_read(entry)
        assert content is not None
        most = info.size + 1 if content.offset is None else info.size  # one more tells a file that has grown
        if info.size <= _PIECE:
            data = os.read(descriptor, most)
            self._writer.add(entry.path, info, xattrs=entry.xattrs, content=data)
            if self._erofs is not None:
                self._erofs.write(data)
            return sha256(data).digest()
        hasher = sha256(more=info.size)
        # Pieces that fill the sink's blocks need neither be joined nor cut.
        pieces = _pieces(descriptor, most, hasher.update, lambda: self._sink.room)
        if self._erofs is not None:
            pieces = _each_to(self._erofs, pieces)
        self._writer.add(entry.path, info, xattrs=entry.xattrs, content=pieces)
        return hasher.digest()


def _each_to(erofs: ErofsCopy, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        erofs.write(piece)
        yield piece


def _pieces(
    descriptor: int, size: int, update: Callable[[bytes], object], room: Callable[[], int] = lambda: _PIECE
) -> Iterator[bytes]:
    """What a descriptor gives, at most `size` bytes, in pieces of at most `room()`; `update` is told of each."""
    left = size
    while left:
        piece = os.read(descriptor, min(left, room()))
        if not piece:
            return
        left -= len(piece)
        update(piece)
        yield piece


def digest_file(content: Content, size: int) -> bytes:
    """The SHA-256 of a file's content, as `write_layer` would report it."""
    hasher = sha256(more=size)
    descriptor = _open_content(content)
    try:
        for _ in _pieces(descriptor, size, hasher.update):
            pass
    finally:
        os.close(descriptor)
    return hasher.digest()
