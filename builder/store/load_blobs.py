"""The blobs that the images of an archive consist of: verified, gathered, and put into the store at the end."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from builder.errors import LayerError, StoreError
from builder.filesystem.compression import SUFFIXES
from builder.filesystem.decompress import decompressor
from builder.oci.spec import DOCKER_LAYER, OCI_LAYER, Descriptor, digest_of
from builder.store.archive import Contents, Piece
from builder.store.records import LayerRecord
from builder.store.store import Store


class Blobs:
    """Gathers the blobs of an archive, or of the store where the archive lacks them; `keep` puts them into the store.
    What is made of them goes to `scratch` first."""

    def __init__(self, store: Store, contents: Contents, scratch: str) -> None:
        self._store = store
        self._contents = contents
        self._scratch = scratch
        self._taken: dict[str, Piece] = {}
        self._made: dict[str, bytes] = {}  # by digest
        self._records: list[LayerRecord] = []
        self._read_layers: dict[str, tuple[str, int, str]] = {}  # by the digest of the layer's bytes

    def keep(self) -> None:
        """Put the blobs into the store, and remember what layers they are."""
        for digest, piece in self._taken.items():
            if not self._store.layout.has(digest):
                _sync(piece.path)
                self._store.layout.adopt(piece.path, digest)
        for data in self._made.values():
            self._store.layout.put(data)
        for record in dict.fromkeys(self._records):
            self._store.database.add_layer(record)

    def find(self, descriptor: Descriptor) -> Piece | None:
        """A blob in the archive, or else in the store. Raises LayerError when it has not the size that is stated."""
        piece = self._contents.blob(descriptor.digest)
        if piece is None and self._store.layout.has(descriptor.digest):
            path = self._store.layout.blob_path(descriptor.digest)
            piece = Piece(path, descriptor.digest, os.stat(path).st_size, stored=True)
        if piece is not None and (piece.digest != descriptor.digest or piece.size != descriptor.size):
            raise LayerError(
                f"the blob {descriptor.digest} is not what the archive says of it", place=self._contents.place
            )
        return piece

    def document(self, descriptor: Descriptor) -> bytes:
        """A JSON blob's bytes. Raises LayerError when it is missing or too large."""
        return self._contents.document(descriptor.digest, self.find(descriptor))

    def take(self, descriptor: Descriptor) -> None:
        """Gather a blob that was found."""
        piece = self.find(descriptor)
        assert piece is not None
        self.take_piece(piece)

    def take_piece(self, piece: Piece) -> None:
        """Gather a file of the archive as it is."""
        self._taken[piece.digest] = piece

    def holds(self, digest: str) -> bool:
        """Whether a blob is gathered."""
        return digest in self._taken

    def add(self, data: bytes) -> str:
        """Gather a document that is made here, or was read. Returns its digest."""
        digest = digest_of(data)
        self._made[digest] = data
        return digest

    # --- layers

    def verify(self, diff_id: str, layer: Descriptor) -> None:
        """Make sure that a blob's content has its diff ID, unless it was made or read here before."""
        known = [record for record in self._store.database.layers(diff_id) if record.digest == layer.digest]
        if any(record.uncompressed for record in known) and self._store.layout.has(layer.digest):
            return
        piece = self.find(layer)
        assert piece is not None
        size, _ = self._content(piece, diff_id, layer.digest)
        self._records.append(LayerRecord(diff_id, layer.digest, layer.media_type, layer.size, uncompressed=size))

    def add_layer(self, diff_id: str, path: str) -> Descriptor:
        """Gather a file of the archive as a layer: in the form that is here already, or else compressed, if it is
        not. Raises LayerError."""
        piece = self._contents.find(path)
        if piece is None:
            raise LayerError(f"the archive has no {path}", place=self._contents.place)
        size, compression = self._content(piece, diff_id, path)
        record = next(self._read_forms(diff_id), None)
        if record is not None:
            return Descriptor(_oci_type(record.media_type), record.digest, record.size)
        if compression == "uncompressed":
            piece, compression = self._compress(piece), "gzip"
        if compression not in SUFFIXES:
            raise LayerError(f"layers compressed with {compression} are not supported", place=path)
        media_type = OCI_LAYER + SUFFIXES[compression]
        self.take_piece(piece)
        self._records.append(LayerRecord(diff_id, piece.digest, media_type, piece.size, uncompressed=size))
        return Descriptor(media_type, piece.digest, piece.size)

    def _read_forms(self, diff_id: str) -> Iterator[LayerRecord]:
        """The forms of a layer in this archive or in the store; none that was only claimed to be that layer."""
        yield from (one for one in self._records if one.diff_id == diff_id)
        for record in self._store.database.layers(diff_id):
            if record.uncompressed and self._store.layout.has(record.digest):
                yield record

    def _content(self, piece: Piece, diff_id: str, place: str) -> tuple[int, str]:
        """The uncompressed size of a layer, and its compression. Raises LayerError unless it has this diff ID."""
        found, size, compression = self._read(piece)
        if found != diff_id:
            raise LayerError(
                f"the layer's content is {found}, not {diff_id} as its configuration says", place=place,
                remedy="the archive is damaged or forged",
            )  # fmt: skip
        return size, compression

    def _read(self, piece: Piece) -> tuple[str, int, str]:
        """The diff ID of a layer, its uncompressed size, and its compression: found once, though many images of an
        archive may have it."""
        known = self._read_layers.get(piece.digest)
        if known is not None:
            return known
        hasher = hashlib.sha256()
        with open(piece.path, "rb") as file:
            reader = decompressor(file, limits=self._store.limits, place=piece.digest)
            while chunk := reader.read(1 << 20):
                hasher.update(chunk)
        found = f"sha256:{hasher.hexdigest()}", reader.total, reader.compression
        self._read_layers[piece.digest] = found
        return found

    def _compress(self, piece: Piece) -> Piece:
        from builder.filesystem.compress import LayerSink

        try:
            with LayerSink(self._scratch) as sink, open(piece.path, "rb") as file:
                while chunk := file.read(1 << 20):
                    sink.write(chunk)
                blob = sink.finish()
        except OSError as error:
            raise StoreError(f"cannot store a layer: {error.strerror}", place=self._store.root) from error
        return Piece(blob.path, blob.digest, blob.size)


def _oci_type(media_type: str) -> str:
    return media_type.replace(f"{DOCKER_LAYER}.", f"{OCI_LAYER}+").replace(DOCKER_LAYER, OCI_LAYER)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
