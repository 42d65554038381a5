"""Loading images from archives: OCI layouts in a tar file, and what `docker save` writes, since 1.10.

An archive with an `index.json` is an OCI layout; its manifests are kept byte for byte, so that every digest stays. One
with a `manifest.json` alone is Docker's older form: its layers are uncompressed, and get a manifest here. Everything is
verified before the store changes: digests and sizes of blobs, and that each layer's content has its diff ID.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

import msgspec

from builder.errors import InvalidReference, LayerError, StoreError
from builder.filesystem.archive import NAMELESS
from builder.filesystem.compression import SUFFIXES
from builder.filesystem.decompress import decompressor
from builder.filesystem.readable import Readable
from builder.oci import reference as references
from builder.oci.reference import Reference
from builder.oci.spec import (
    DOCKER_LAYER,
    IMAGE_NAME,
    INDEXES,
    MANIFESTS,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    REF_NAME,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    decode,
    digest_of,
    encode,
    without_names,
)
from builder.store.archive import Contents, Piece, Progress, read_contents
from builder.store.collect import collect
from builder.store.records import LayerRecord
from builder.store.store import Store

_DEEPEST = 4  # indexes within indexes


class Loaded(msgspec.Struct, frozen=True):
    """An image that was loaded, with its names. Those with a digest that is not its own are in `passed_over`: the
    archive is forged, or the digest is that of an index or a manifest of which this was made."""

    descriptor: Descriptor
    names: tuple[Reference, ...] = ()
    passed_over: tuple[Reference, ...] = ()

    @classmethod
    def of(cls, descriptor: Descriptor, names: Iterable[Reference]) -> Loaded:
        stated = tuple(dict.fromkeys(names))
        true = tuple(name for name in stated if name.digest in (None, descriptor.digest))
        return cls(descriptor, true, tuple(name for name in stated if name not in true))


class _Saved(msgspec.Struct, rename="pascal"):
    """An entry of Docker's `manifest.json`: paths in the archive."""

    config: str
    layers: list[str] | None = None
    repo_tags: list[str] | None = None


def load(
    store: Store, stream: Readable, *, platform: Platform | None = None, place: str, progress: Progress | None = None
) -> list[Loaded]:
    """Load all images of an archive (with `platform` only that variant of each). `place` is the archive in errors.

    Raises LayerError, StoreError; then nothing was loaded and nothing is left behind.
    """
    try:
        with store.lease(), store.scratch() as scratch:
            contents = read_contents(stream, store.layout, scratch, place=place, progress=progress, limits=store.limits)
            loader = _Loader(store, contents, scratch, platform)
            images = loader.read()
            loader.keep()
            for image in images:
                store.images.tag(image.descriptor, list(image.names))
    except BaseException as error:
        with suppress(StoreError):  # what it cannot remove, the next one will; the first error is what counts
            collect(store)
        if isinstance(error, LayerError) and error.place == NAMELESS:
            error.place = place
            error.remedy = error.remedy or "give what 'builder save', 'docker save' or skopeo wrote"
        raise
    return images


class _Loader:
    """The work on one archive. Blobs are gathered first; `keep` puts them into the store."""

    def __init__(self, store: Store, contents: Contents, scratch: str, platform: Platform | None) -> None:
        self._store = store
        self._contents = contents
        self._scratch = scratch
        self._platform = platform
        self._blobs: dict[str, Piece] = {}
        self._made: list[bytes] = []
        self._records: list[LayerRecord] = []
        self._read_layers: dict[str, tuple[str, int, str]] = {}  # by the digest of the layer's bytes

    def read(self) -> list[Loaded]:
        """The images of the archive, verified."""
        contents = self._contents
        saved = self._saved()
        index = contents.find("index.json")
        if index is not None:
            images = self._from_layout(decode(contents.document("index.json", index), Index, "index.json"), saved)
        elif saved:
            images = [image for entry in saved if (image := self._from_docker(entry)) is not None]
        else:
            raise LayerError(
                "this is no image archive: it has neither index.json nor manifest.json", place=contents.place,
                remedy="'builder import' makes an image of a file system's archive",
            )  # fmt: skip
        if not images:
            what = "image" if self._platform is None else f"image for {self._platform}"
            raise LayerError(f"the archive has no {what}", place=contents.place)
        return images

    def keep(self) -> None:
        """Put the blobs into the store, and remember what layers they are."""
        for digest, piece in self._blobs.items():
            if not self._store.layout.has(digest):
                _sync(piece.path)
                self._store.layout.adopt(piece.path, digest)
        for data in self._made:
            self._store.layout.put(data)
        for record in dict.fromkeys(self._records):
            self._store.database.add_layer(record)

    def _saved(self) -> list[_Saved]:
        piece = self._contents.find("manifest.json")
        if piece is None:
            return []
        try:
            return msgspec.json.decode(self._contents.document("manifest.json", piece), type=list[_Saved])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise LayerError(f"manifest.json is malformed: {error}", place=self._contents.place) from error

    # --- OCI layouts

    def _from_layout(self, index: Index, saved: list[_Saved]) -> list[Loaded]:
        names: dict[str, list[Reference]] = {}
        entries: dict[str, Descriptor] = {}
        for entry in index.manifests:
            chosen = self._include(entry, _DEEPEST)
            if chosen is None:
                raise LayerError(f"the archive has not all of {entry.digest}", place=self._contents.place)
            if self._platform is not None and (chosen := self._variant(chosen)) is None:
                continue
            entries[chosen.digest] = chosen
            names.setdefault(chosen.digest, []).extend(_names(entry))
        for digest, entry in entries.items():
            if not names[digest]:
                names[digest] = self._docker_names(entry, saved)
        return [Loaded.of(entry, names[digest]) for digest, entry in entries.items()]

    def _docker_names(self, entry: Descriptor, saved: list[_Saved]) -> list[Reference]:
        """The names that manifest.json, beside the index, has for an image without one."""
        if entry.media_type in INDEXES or not saved:
            return []
        config = decode(self._document(entry), Manifest, entry.digest).config.digest
        found = [one for one in saved if (piece := self._contents.find(one.config)) and piece.digest == config]
        return [name for one in found for name in self._tags(one)]

    def _include(self, descriptor: Descriptor, depth: int) -> Descriptor | None:
        """Take an index or manifest with all that is in the archive of it; None if that is not enough for an image."""
        if self._find(descriptor) is None:
            return None
        if descriptor.media_type in INDEXES:
            if not depth:
                raise LayerError("indexes are nested too deeply", place=self._contents.place)
            index = decode(self._document(descriptor), Index, descriptor.digest)
            included = [self._include(child, depth - 1) for child in index.manifests]
            if not any(included):
                return None
        elif descriptor.media_type in MANIFESTS:
            if not self._include_manifest(decode(self._document(descriptor), Manifest, descriptor.digest)):
                return None
        else:
            raise LayerError(f"unknown kind of image {descriptor.media_type!r}", place=self._contents.place)
        self._take(descriptor)
        return without_names(descriptor)

    def _include_manifest(self, manifest: Manifest) -> bool:
        parts = [manifest.config, *manifest.layers]
        if any(self._find(part) is None for part in parts):
            return False
        layers = [layer for layer in manifest.layers if layer.media_type.startswith((OCI_LAYER, DOCKER_LAYER))]
        if layers:
            config = decode(self._document(manifest.config), ImageConfig, manifest.config.digest)
            diff_ids = config.rootfs.diff_ids or []
            if len(diff_ids) != len(manifest.layers):
                raise LayerError(
                    f"the manifest has {len(manifest.layers)} layers, its configuration {len(diff_ids)}",
                    place=self._contents.place,
                )
            for diff_id, layer in zip(diff_ids, manifest.layers, strict=True):
                self._verify(diff_id, layer)
        for part in parts:
            self._take(part)
        return True

    def _verify(self, diff_id: str, layer: Descriptor) -> None:
        """Make sure that a blob's content has its diff ID, unless it was made or read here before."""
        known = [record for record in self._store.database.layers(diff_id) if record.digest == layer.digest]
        if any(record.uncompressed for record in known) and self._store.layout.has(layer.digest):
            return
        piece = self._find(layer)
        assert piece is not None
        found, size, _ = self._content(piece)
        if found != diff_id:
            raise LayerError(
                f"the layer's content is {found}, not {diff_id} as its configuration says", place=layer.digest,
                remedy="the archive is damaged or forged",
            )  # fmt: skip
        self._records.append(LayerRecord(diff_id, layer.digest, layer.media_type, layer.size, uncompressed=size))

    def _variant(self, descriptor: Descriptor) -> Descriptor | None:
        """The manifest for the platform that was asked for, None if the image has none."""
        if descriptor.media_type in INDEXES:
            index = decode(self._document(descriptor), Index, descriptor.digest)
            candidates = [child for child in index.manifests if child.digest in self._blobs]
        else:
            candidates = [descriptor]
        for candidate in candidates:
            if candidate.media_type in MANIFESTS and self._platform_of(candidate) == self._platform:
                return msgspec.structs.replace(candidate, annotations=None)
        return None

    def _platform_of(self, manifest: Descriptor) -> Platform | None:
        if manifest.platform is not None:
            return manifest.platform.normalised()
        config = decode(self._document(manifest), Manifest, manifest.digest).config
        return decode(self._document(config), ImageConfig, config.digest).platform()

    def _find(self, descriptor: Descriptor) -> Piece | None:
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

    def _document(self, descriptor: Descriptor) -> bytes:
        return self._contents.document(descriptor.digest, self._find(descriptor))

    def _take(self, descriptor: Descriptor) -> None:
        piece = self._find(descriptor)
        assert piece is not None
        self._blobs[descriptor.digest] = piece

    # --- Docker's older form

    def _from_docker(self, saved: _Saved) -> Loaded | None:
        piece = self._contents.find(saved.config)
        data = self._contents.document(saved.config, piece)
        config = decode(data, ImageConfig, saved.config)
        diff_ids = config.rootfs.diff_ids or []
        paths = saved.layers or []
        if self._platform is not None and config.platform() != self._platform:
            return None
        if len(diff_ids) != len(paths):
            raise LayerError(
                f"manifest.json has {len(paths)} layers, the configuration {len(diff_ids)}", place=self._contents.place
            )
        layers = [self._layer(diff_id, path) for diff_id, path in zip(diff_ids, paths, strict=True)]
        manifest = Manifest(
            schema_version=2,
            media_type=OCI_MANIFEST,
            config=Descriptor(OCI_CONFIG, digest_of(data), len(data)),
            layers=layers,
        )
        encoded = encode(manifest)
        self._made += [data, encoded]
        return Loaded.of(Descriptor(OCI_MANIFEST, digest_of(encoded), len(encoded)), self._tags(saved))

    def _layer(self, diff_id: str, path: str) -> Descriptor:
        """A layer as the store keeps it: the form that is here already, or else compressed, if it is not."""
        piece = self._contents.find(path)
        if piece is None:
            raise LayerError(f"the archive has no {path}", place=self._contents.place)
        found, size, compression = self._content(piece)
        if found != diff_id:
            raise LayerError(
                f"the layer's content is {found}, not {diff_id} as its configuration says", place=path,
                remedy="the archive is damaged or forged",
            )  # fmt: skip
        record = next(self._read_forms(diff_id), None)
        if record is not None:
            return Descriptor(_oci_type(record.media_type), record.digest, record.size)
        if compression == "uncompressed":
            piece, compression = self._compress(piece), "gzip"
        media_type = OCI_LAYER + SUFFIXES.get(compression, "")
        if compression not in SUFFIXES:
            raise LayerError(f"layers compressed with {compression} are not supported", place=path)
        self._blobs[piece.digest] = piece
        self._records.append(LayerRecord(diff_id, piece.digest, media_type, piece.size, uncompressed=size))
        return Descriptor(media_type, piece.digest, piece.size)

    def _read_forms(self, diff_id: str) -> Iterator[LayerRecord]:
        """The forms of a layer in this archive or in the store; none that was only claimed to be that layer."""
        yield from (one for one in self._records if one.diff_id == diff_id)
        for record in self._store.database.layers(diff_id):
            if record.uncompressed and self._store.layout.has(record.digest):
                yield record

    def _content(self, piece: Piece) -> tuple[str, int, str]:
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

    def _tags(self, saved: _Saved) -> list[Reference]:
        return [references.parse(name) for name in saved.repo_tags or ()]


def _names(entry: Descriptor) -> Sequence[Reference]:
    """The name that an entry of an index states in full; a tag alone is none."""
    annotations = entry.annotations or {}
    text = annotations.get(IMAGE_NAME)
    if text is None:
        text = annotations.get(REF_NAME, "")
        if "/" not in text and ":" not in text:
            return ()
    try:
        return (references.parse(text),)
    except InvalidReference as error:
        raise LayerError(f"the archive has a wrong name: {error.cause}", place=text) from error


def _oci_type(media_type: str) -> str:
    return media_type.replace(f"{DOCKER_LAYER}.", f"{OCI_LAYER}+").replace(DOCKER_LAYER, OCI_LAYER)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
