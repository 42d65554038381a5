"""Images as archives: an OCI layout in a tar file, and Docker's `docker save` form of it.

One writer serves both: since Docker 25 a saved archive is an OCI layout with a `manifest.json` beside it, which older
Dockers and podman read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import msgspec

from builder.errors import StoreError
from builder.filesystem import kinds
from builder.filesystem.append import appender
from builder.filesystem.tar import TarWriter
from builder.filesystem.tree import FileInfo
from builder.oci.layout import LAYOUT_FILE
from builder.oci.platform import host_platform
from builder.oci.reference import Reference
from builder.oci.spec import (
    IMAGE_NAME,
    INDEXES,
    REF_NAME,
    Descriptor,
    Index,
    Manifest,
    decode,
    encode,
    is_image,
    without_names,
)
from builder.store.store import Store


class ArchivedImage(msgspec.Struct, frozen=True):
    """An image to be written, with the names that it shall have in the archive."""

    descriptor: Descriptor
    names: tuple[Reference, ...] = ()


def write_archive(store: Store, images: Sequence[ArchivedImage], file: BinaryIO, *, docker: bool) -> None:
    """Write an archive of the images to a file. The order and all metadata depend on the images alone.

    A Docker archive names single images only: of an index it names the one for this machine, or the first that is here;
    its readers take two with one name for an error. Raises StoreError.
    """
    tar = TarWriter(file.write, appender(file))
    blobs: dict[str, int] = {}
    legacy = []
    for image in images:
        single: list[tuple[bool, Manifest]] = []
        for manifest_descriptor in _manifests(store, image.descriptor, blobs):
            manifest = decode(store.layout.read(manifest_descriptor.digest), Manifest, manifest_descriptor.digest)
            for blob in (manifest_descriptor, manifest.config, *manifest.layers):
                blobs[blob.digest] = blob.size
            if is_image(manifest_descriptor):
                single.append((_is_foreign(manifest_descriptor), manifest))
        if single:
            legacy.append((min(single, key=lambda found: found[0])[1], image.names))
    _directory(tar, "blobs")
    _directory(tar, "blobs/sha256")
    for digest in sorted(blobs):
        _blob(tar, store, digest, blobs[digest])
    entries = [entry for image in images for entry in index_entries(image)]
    _file(tar, "index.json", encode(Index(schema_version=2, manifests=entries)))
    if docker:
        _file(tar, "manifest.json", msgspec.json.encode([_legacy(manifest, names) for manifest, names in legacy]))
    _file(tar, "oci-layout", LAYOUT_FILE)
    tar.close()


def _is_foreign(descriptor: Descriptor) -> bool:
    """Whether an image is for another kind of machine than this."""
    host, platform = host_platform(), descriptor.platform
    return platform is not None and (platform.os, platform.architecture) != (host.os, host.architecture)


def _manifests(store: Store, descriptor: Descriptor, blobs: dict[str, int]) -> Iterator[Descriptor]:
    if descriptor.media_type in INDEXES:
        blobs[descriptor.digest] = descriptor.size
        yield from store.images.complete(descriptor)
    else:
        yield descriptor


def index_entries(image: ArchivedImage) -> Iterator[Descriptor]:
    """What stands for an image in an index of others: an entry for each name, with the tag alone as its reference, as
    containerd and BuildKit write it; one without either for an image without names."""
    own = without_names(image.descriptor)
    if not image.names:
        yield own
    for name in image.names:
        tag = {REF_NAME: name.tag} if name.tag else {}
        yield msgspec.structs.replace(own, annotations={**(own.annotations or {}), IMAGE_NAME: str(name), **tag})


def _legacy(manifest: Manifest, names: tuple[Reference, ...]) -> dict[str, object]:
    """An entry of `manifest.json`, whose names are tags only, as in `docker save`: its readers refuse a digest."""
    return {
        "Config": _path(manifest.config.digest),
        "RepoTags": [f"{name.familiar_name}:{name.tag}" for name in names if name.tag] or None,
        "Layers": [_path(layer.digest) for layer in manifest.layers],
    }


def _path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _directory(tar: TarWriter, path: str) -> None:
    tar.add(path, FileInfo(kinds.DIRECTORY, 0o755))


def _file(tar: TarWriter, path: str, data: bytes) -> None:
    tar.add(path, FileInfo(kinds.FILE, 0o644, size=len(data)), content=data)


def _blob(tar: TarWriter, store: Store, digest: str, size: int) -> None:
    with store.layout.open(digest) as file:
        if os.fstat(file.fileno()).st_size != size:
            raise StoreError(f"blob {digest} has a wrong size", place=store.root, remedy="run 'builder fsck'")
        tar.add(_path(digest), FileInfo(kinds.FILE, 0o644, size=size), content=file.fileno())
