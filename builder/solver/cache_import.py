"""Reads the caches that a build names, before its steps are looked up.

What cannot be had (a cache that does not exist yet, a registry that is away, a cache of another builder or version, a
damaged or forged one) is a warning, as with BuildKit, and the build goes on without that cache. Only documents are read
here: layers and cache mounts are fetched when somebody needs their bytes, and compared with their digests then; a layer
also with its diff ID.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from builder.errors import BuilderError, Interrupted, NotFoundError, StoreError, Unsupported
from builder.filesystem.compression import ZSTD, kind_of
from builder.oci.digests import is_sha256
from builder.oci.layout import Layout
from builder.oci.reference import Reference
from builder.oci.spec import (
    INDEXES,
    MANIFESTS,
    REF_NAME,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    decode,
    digest_of,
    is_blob,
)
from builder.progress import Reporter, StepDone, StepStarted, Warned
from builder.solver.cache_records import ANNOTATION, CONFIG, LARGEST_DOCUMENT, Document, decode_cache
from builder.solver.external import External, MountOffer, Offer

if TYPE_CHECKING:
    from builder.registry.transport import Session

LAYOUT = "oci-layout:"

_BUILDKIT = "application/vnd.buildkit.cacheconfig.v0"
_MOST_PLATFORMS = 64


class Cache(Protocol):
    """Where a cache is: `origin` is what its blobs are fetched from later."""

    @property
    def origin(self) -> str: ...

    def top(self) -> tuple[Descriptor, bytes]:
        """The manifest or index. Raises NotFoundError if there is none."""

    def manifest(self, entry: Descriptor) -> bytes:
        """A manifest that the index lists."""

    def document(self, descriptor: Descriptor) -> bytes:
        """A small blob, verified."""


class RegistryCache:
    """A cache, or an image with one, in a registry."""

    def __init__(self, session: Callable[[], Session], reference: Reference) -> None:
        self._session = session
        self._reference = reference

    @property
    def origin(self) -> str:
        return str(self._reference)

    def top(self) -> tuple[Descriptor, bytes]:
        from builder.registry.pull import fetch_manifest

        return fetch_manifest(self._session(), self._reference)

    def manifest(self, entry: Descriptor) -> bytes:
        from builder.registry.pull import fetch_entry

        return fetch_entry(self._session(), self._reference, entry)

    def document(self, descriptor: Descriptor) -> bytes:
        from builder.registry.pull import fetch_document

        return fetch_document(self._session(), self._reference, descriptor)


class LayoutCache:
    """A cache in a directory, which is an OCI layout; the entry with this tag, or this digest."""

    def __init__(self, path: str, tag: str, digest: str = "") -> None:
        self._layout = Layout(path)
        self._tag = tag
        self._digest = digest

    @property
    def origin(self) -> str:
        return LAYOUT + self._layout.path

    def top(self) -> tuple[Descriptor, bytes]:
        if not os.path.exists(os.path.join(self._layout.path, "index.json")):
            raise NotFoundError("the directory is no OCI layout", place=self._layout.path)
        for entry in reversed(self._layout.index().manifests):
            if entry.digest == self._digest if self._digest else (entry.annotations or {}).get(REF_NAME) == self._tag:
                return entry, self.document(entry)
        raise NotFoundError(
            f"the layout has nothing with {self._digest or f'the tag {self._tag!r}'}", place=self._layout.path
        )

    def manifest(self, entry: Descriptor) -> bytes:
        return self.document(entry)

    def document(self, descriptor: Descriptor) -> bytes:
        if not 0 <= descriptor.size <= LARGEST_DOCUMENT:
            raise StoreError(f"has a document of absurd size ({descriptor.size} bytes)", place=self._layout.path)
        with self._layout.open(descriptor.digest) as file:
            data = file.read(descriptor.size + 1)
        if len(data) != descriptor.size or digest_of(data) != descriptor.digest:
            raise StoreError(f"blob {descriptor.digest} is damaged", place=self._layout.path)
        return data


def import_caches(caches: Sequence[Cache], report: Reporter, lineage: str) -> External:
    """Read caches; the first counts most. `lineage` is that of this build's steps. Raises Interrupted."""
    external = External(lineage)
    for cache in caches:
        name = cache.origin.removeprefix(LAYOUT)
        label = f"importing cache from {name}"
        report(StepStarted(label, label))
        started = time.monotonic()
        try:
            parts = list(_parts(cache))
            if not parts:
                raise Unsupported("it is an image without a cache of this builder's")
            for offers in [_offers(document, blobs, cache.origin) for document, blobs in parts]:
                external.add(*offers)
        except BuilderError as error:
            if isinstance(error, Interrupted):
                raise
            report(StepDone(label, label, seconds=time.monotonic() - started, error=error.cause))
            report(Warned(f"--cache-from {name} is left out: {_reason(error)}"))
        else:
            report(StepDone(label, label, seconds=time.monotonic() - started))
    return external


def _reason(error: BuilderError) -> str:
    why = f"there is none yet ({error.cause})" if isinstance(error, NotFoundError) else error.cause
    return f"{why}; {error.remedy}" if error.remedy and not isinstance(error, NotFoundError) else why


def _parts(cache: Cache) -> Iterator[tuple[Document, list[Descriptor]]]:
    """Each document of a cache with the manifest's layers; an index of images may have several."""
    descriptor, data = cache.top()
    place = cache.origin
    if descriptor.media_type in MANIFESTS:
        manifests = [data]
    elif descriptor.media_type in INDEXES:
        entries = decode(data, Index, place).manifests
        if any(entry.media_type == _BUILDKIT for entry in entries):
            raise _made_by_buildkit()
        entries = [entry for entry in entries if entry.media_type in MANIFESTS and not _is_attestation(entry)]
        if len(entries) > _MOST_PLATFORMS:
            raise StoreError(f"it has {len(entries)} manifests", place=place)
        manifests = [cache.manifest(entry) for entry in entries]
    else:
        raise Unsupported(f"it is neither a cache nor an image, but {descriptor.media_type}")
    for part in manifests:
        manifest = decode(part, Manifest, f"the manifest of {place}")
        document = _document(cache, manifest, place)
        if document is not None:
            yield document, manifest.layers


def _is_attestation(entry: Descriptor) -> bool:
    return entry.platform is not None and entry.platform.os == "unknown"


def _document(cache: Cache, manifest: Manifest, place: str) -> Document | None:
    """What a manifest says as a cache: by its configuration, or by an annotation if it is an image's. None for an image
    without."""
    if manifest.config.media_type == _BUILDKIT:
        raise _made_by_buildkit()
    if manifest.config.media_type == CONFIG:
        document = decode_cache(cache.document(manifest.config), place)
        if len(document.layers) + len(document.mounts) != len(manifest.layers):
            raise StoreError(
                f"it names {len(document.layers)} layers and {len(document.mounts)} cache mounts,"
                f" its manifest has {len(manifest.layers)} blobs",
                place=place,
            )
        return document
    inline = (manifest.annotations or {}).get(ANNOTATION)
    if inline is None:
        return None
    document = decode_cache(inline.encode("utf-8", "surrogatepass"), place)
    config = decode(cache.document(manifest.config), ImageConfig, f"the configuration of {place}")
    diff_ids = config.rootfs.diff_ids or []
    fits = len(diff_ids) == len(manifest.layers) and all(map(is_sha256, diff_ids))
    if not fits or document.layers or document.mounts:
        raise StoreError("its inline cache does not fit the image", place=place)
    return msgspec.structs.replace(document, layers=tuple(diff_ids))


_Offers = tuple[Document, list[tuple[str, Offer]], list[tuple[str, MountOffer]]]


def _offers(document: Document, blobs: list[Descriptor], origin: str) -> _Offers:
    """A document with what its manifest has by diff ID and by mount name."""
    layers, mounts = blobs[: len(document.layers)], blobs[len(document.layers) :]
    if any(kind_of(blob.media_type) != ZSTD for blob in mounts):
        raise StoreError("it has a cache mount that is no zstd tar", place=origin)
    return (
        document,
        [(diff_id, _offer(blob, origin)) for diff_id, blob in zip(document.layers, layers, strict=True)],
        [
            (mount.name, MountOffer(mount.id, _offer(blob, origin)))
            for mount, blob in zip(document.mounts, mounts, strict=True)
        ],
    )


def _offer(blob: Descriptor, origin: str) -> Offer:
    """A blob as it is fetched later. The addresses that a descriptor may name are left out: none is asked."""
    if not is_blob(blob):
        raise StoreError(f"it has a blob that cannot be ({blob.digest:.80}, {blob.size} bytes)", place=origin)
    return Offer(Descriptor(blob.media_type, blob.digest, blob.size), origin)


def _made_by_buildkit() -> Unsupported:
    return Unsupported(
        "it was made by BuildKit, whose records mean nothing here",
        remedy="give the cache of this builder another name, with --cache-to",
    )
