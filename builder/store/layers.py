"""Layers by their diff IDs: which blob holds one, where it can be fetched, and unpacked ones as snapshots.

A base image's layers are known before they are here: `ensure_blob` fetches one when somebody needs its bytes, and
`directories` unpacks a stack when a step must see its files. Both do their work once, however many threads or
processes ask.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from builder.errors import StoreError
from builder.filesystem.compression import Compression, kind_of
from builder.oci.layout import Layout
from builder.oci.spec import Descriptor
from builder.store.database import Database, LayerRecord
from builder.store.locks import exclusive

if TYPE_CHECKING:
    from builder.filesystem.archive import Readable
    from builder.filesystem.compress import LayerBlob
    from builder.filesystem.layered import LayeredTree
    from builder.filesystem.snapshots import Snapshots

Fetch = Callable[[str, Descriptor, BinaryIO], None]
"""Fetches a blob: the reference it belongs to, its descriptor, the file that takes the verified bytes."""


class Layers:
    """The layers of one store. `fetch` brings a blob from where its record says it comes from."""

    def __init__(self, layout: Layout, database: Database, snapshots: Callable[[], Snapshots]) -> None:
        self._layout = layout
        self._database = database
        self._open_snapshots = snapshots
        self.fetch: Fetch = _nowhere

    @cached_property
    def _snapshots(self) -> Snapshots:
        return self._open_snapshots()

    def add(self, blob: LayerBlob) -> None:
        """Keep a finished layer: its temporary file becomes a blob of the store."""
        self._layout.pin(blob.diff_id)
        self._layout.adopt(blob.path, blob.digest)
        self._database.add_layer(
            LayerRecord(blob.diff_id, blob.digest, blob.media_type, blob.size, uncompressed=blob.uncompressed_size)
        )

    def know(self, diff_id: str, descriptor: Descriptor, origin: str = "") -> None:
        """Remember that `descriptor` holds the layer, and the reference that it can be fetched from."""
        known = self._database.layers(diff_id)
        if not any(record.digest == descriptor.digest and (record.origin or not origin) for record in known):
            self._database.add_layer(
                LayerRecord(diff_id, descriptor.digest, descriptor.media_type, descriptor.size, origin)
            )

    def ensure_form(self, diff_id: str, compression: Compression | None) -> LayerRecord:
        """The layer's blob in a compression (None: whatever there is), compressed anew if it is here in others only."""
        if compression is None:
            return self.ensure_blob(diff_id)
        for record in self._database.layers(diff_id):
            if kind_of(record.media_type) == compression.kind and self._layout.has(record.digest):
                return record
        with self._once(f"{diff_id}-{compression.kind}"):
            return self._compress(diff_id, compression)

    def _compress(self, diff_id: str, compression: Compression) -> LayerRecord:
        from builder.filesystem.compress import LayerSink

        with LayerSink(self._layout.temporary, compression=compression.kind, level=compression.level) as sink:
            stream = self.open_tar(diff_id)
            while piece := stream.read(1 << 20):
                sink.write(piece)
            blob = sink.finish()
        if blob.diff_id != diff_id:
            raise StoreError(f"layer {diff_id} is damaged", place=self._layout.path, remedy="run 'builder fsck'")
        self.add(blob)
        return LayerRecord(blob.diff_id, blob.digest, blob.media_type, blob.size)

    def record(self, diff_id: str) -> LayerRecord | None:
        """The best stored form of a layer: one that is here before one that must be fetched. None without either.

        Forms that were made or unpacked here come first: what others hold is only claimed by an image's configuration.
        """
        self._layout.pin(diff_id)
        records = sorted(self._database.layers(diff_id), key=lambda record: not record.uncompressed)
        for record in records:
            if self._layout.has(record.digest):
                return record
        return next((record for record in records if record.origin), None)

    def available(self, diff_id: str) -> bool:
        """Whether the layer's bytes are here or can be fetched."""
        return self.record(diff_id) is not None

    def ensure_blob(self, diff_id: str) -> LayerRecord:
        """The layer's blob, fetched if it is not here. Raises StoreError, RegistryError."""
        record = self._required(diff_id)
        if self._layout.has(record.digest):
            return record
        with self._once(record.digest):
            if not self._layout.has(record.digest):
                self._fetch_blob(record)
        return record

    def _fetch_blob(self, record: LayerRecord) -> None:
        temporary = os.path.join(self._layout.temporary, f"fetch.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            with open(temporary, "xb") as file:
                self.fetch(record.origin, Descriptor(record.media_type, record.digest, record.size), file)
                file.flush()
                os.fsync(file.fileno())
            self._layout.adopt(temporary, record.digest)
        except OSError as error:
            raise StoreError(f"cannot store blob {record.digest}: {error.strerror}", place=self._layout.path) from error
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)

    def open_tar(self, diff_id: str) -> Readable:
        """The layer's uncompressed tar stream."""
        record = self.ensure_blob(diff_id)
        from builder.filesystem.decompress import decompressor

        return decompressor(self._layout.open(record.digest))

    def directories(self, diff_ids: Sequence[str]) -> list[str]:
        """The unpacked layers of a stack, given lowest first; the directories come top first, as overlays want them."""
        return top_first(self.paths(diff_ids))

    def paths(self, diff_ids: Sequence[str]) -> list[str]:
        """The directory of each layer of a stack, lowest first.

        Those that are not there are unpacked now, from the lowest up: a layer may leave out directories that those
        below it have, and takes over their owners and modes.
        """
        paths: list[str] = []
        for diff_id in diff_ids:
            self._layout.pin(diff_id)
            below = top_first(paths)
            path = self._snapshots.path(diff_id, below)
            if path is None:
                path = self._unpack(diff_id, below)
            paths.append(path)
        return paths

    def _unpack(self, diff_id: str, below: Sequence[str]) -> str:
        """Unpack a layer; of one that is read to its end for the first time the size is noted."""
        record = self.ensure_blob(diff_id)
        from builder.filesystem.decompress import decompressor

        reader = decompressor(self._layout.open(record.digest))
        path = self._snapshots.unpack(diff_id, lambda: reader, below)
        if not record.uncompressed and reader.total:
            self._database.add_layer(msgspec.structs.replace(record, uncompressed=reader.total))
        return path

    def adopt(self, diff_id: str, upper: str) -> None:
        """Make a step's upper directory the layer's snapshot."""
        self._layout.pin(diff_id)
        self._snapshots.adopt(diff_id, upper)

    def tree(self, diff_ids: Sequence[str]) -> LayeredTree:
        """The files of a stack of layers, given lowest first."""
        from builder.filesystem.layered import LayeredTree

        return LayeredTree(self.directories(diff_ids))

    def _required(self, diff_id: str) -> LayerRecord:
        record = self.record(diff_id)
        if record is None:
            raise StoreError(
                f"layer {diff_id} is missing from the store", place=self._layout.path, remedy="build with --no-cache"
            )
        return record

    @contextmanager
    def _once(self, digest: str) -> Iterator[None]:
        path = os.path.join(self._layout.temporary, f"fetch-{digest.partition(':')[2]}.lock")
        with exclusive(path):
            yield


def top_first(paths: Sequence[str]) -> list[str]:
    """Directories of layers as an overlay takes them: each once, since the upper of two equal ones hides the lower."""
    return list(dict.fromkeys(reversed(paths)))


def _nowhere(origin: str, descriptor: Descriptor, file: BinaryIO) -> None:
    raise StoreError(f"blob {descriptor.digest} of {origin} is not in the store, and nothing was set up to fetch it")
