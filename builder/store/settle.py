"""Blobs that are in their place but not yet flushed to the disk.

Flushing each layer when it is made would make every step wait for the disk, so a build's layers are flushed together,
before anything outside the cache names them. Until then the database knows in which boot they were written. A builder
that is killed loses nothing by that; after a power failure such a blob may have holes, so it is read again once, and
forgotten if it is not what its name says.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from builder.errors import store_error
from builder.filesystem.locks import exclusive
from builder.oci.layout import Layout, sync_directory

if TYPE_CHECKING:
    from builder.store.database import Database
    from builder.store.records import LayerRecord


_TOGETHER = 128
"""How many blobs are open at once: a process may have 1024 files open, and has others."""


class Settling:
    """Flushes the unflushed blobs of one store, and checks those that an earlier boot left."""

    def __init__(self, layout: Layout, database: Database, boot: str) -> None:
        self._layout = layout
        self._database = database
        self._boot = boot

    def adopt(self, path: str, record: LayerRecord) -> None:
        """Make a finished file, which need not be flushed, the blob of a layer. Raises StoreError.

        An image may name a blob of that digest already, and must not lose it to a file that a power failure can make
        holes in: a blob that is known and has its size stays, so that nobody waits for the disk; any other gives way to
        a file that is flushed. What is damaged and has its size is left to `fsck`.
        """
        size = self._size(record.digest)
        if size is None:
            self._layout.adopt(path, record.digest, sync=False)
            self._database.add_unsettled_layer(record, self._boot)
            return
        if size == record.size and self._is_known(record):
            os.unlink(path)
        else:
            self._flush_file(path)
            self._layout.adopt(path, record.digest)
        self._database.add_layer(record)

    def _size(self, digest: str) -> int | None:
        """The size of a blob; None if it is not here."""
        try:
            return os.stat(self._layout.blob_path(digest)).st_size
        except FileNotFoundError:
            return None

    def _is_known(self, record: LayerRecord) -> bool:
        """Whether the database has this very blob: then it also knows if that is not flushed."""
        return any(known.digest == record.digest for known in self._database.layers(record.diff_id))

    def _flush_file(self, path: str) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise store_error("cannot flush layers to the disk", error, self._layout.path) from error

    def settle(self) -> None:
        """Flush all that is not flushed, whichever process wrote it. Raises StoreError."""
        digests = [digest for digest, _ in self._database.unsettled()]
        if digests:
            self._flush(digests)
            self._database.settled(digests)

    def recover(self) -> None:
        """Believe nothing that an earlier boot left unflushed before it was read again. Raises StoreError."""
        if not self._left():
            return
        with exclusive(os.path.join(self._layout.temporary, "recover.lock")):
            for digest in self._left():  # another process may have looked meanwhile
                self._drop_if_damaged(digest)
                self._flush([digest])
                self._database.settled([digest])

    def _left(self) -> list[str]:
        return [digest for digest, boot in self._database.unsettled() if boot != self._boot]

    def _drop_if_damaged(self, digest: str) -> None:
        """Remove a blob that is not what its name says, but none that takes its place while it is read."""
        import hashlib

        path = self._layout.blob_path(digest)
        found = hashlib.sha256()
        try:
            with open(path, "rb") as file:
                while piece := file.read(1 << 20):
                    found.update(piece)
                damaged = f"sha256:{found.hexdigest()}" != digest
                if damaged and os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                    os.unlink(path)
        except FileNotFoundError:
            pass  # collected meanwhile
        except OSError as error:
            raise store_error("cannot look at what was not flushed to the disk", error, path) from error

    def _flush(self, digests: Sequence[str]) -> None:
        try:
            for start in range(0, len(digests), _TOGETHER):
                self._flush_files(digests[start : start + _TOGETHER])
            sync_directory(self._layout.blobs)
        except OSError as error:
            raise store_error("cannot flush layers to the disk", error, self._layout.path) from error

    def _flush_files(self, digests: Sequence[str]) -> None:
        """Flush blobs that may be open at the same time. Raises OSError."""
        from builder.filesystem.syscalls import start_writing

        opened: list[int] = []
        try:
            for digest in digests:
                try:
                    opened.append(os.open(self._layout.blob_path(digest), os.O_RDONLY | os.O_CLOEXEC))
                except FileNotFoundError:
                    continue  # collected meanwhile
                # With all of them on their way the file system's journal is written once, not once a file.
                start_writing(opened[-1])
            for descriptor in opened:
                os.fsync(descriptor)
        finally:
            for descriptor in opened:
                os.close(descriptor)
