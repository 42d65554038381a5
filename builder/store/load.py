"""Loading images from archives: OCI layouts in a tar file, and what `docker save` writes, since 1.10.

An archive with an `index.json` is an OCI layout; its manifests are kept byte for byte, so that every digest stays. One
with a `manifest.json` alone is Docker's older form: its layers are uncompressed, and get a manifest here. Everything is
verified before the store changes: digests and sizes of blobs, and that each layer's content has its diff ID.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

import msgspec

from builder.errors import InvalidReference, LayerError, StoreError
from builder.filesystem.archive import NAMELESS
from builder.filesystem.readable import Readable
from builder.oci import reference as references
from builder.oci.reference import Reference
from builder.oci.spec import (
    DOCKER_LAYER,
    IMAGE_NAME,
    INDEXES,
    MANIFESTS,
    OCI_LAYER,
    REF_NAME,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    decode,
    without_names,
)
from builder.store.archive import Contents, Progress, read_contents
from builder.store.collect import collect
from builder.store.load_blobs import Blobs
from builder.store.load_docker import DockerImages, Saved, read_saved
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


def load(
    store: Store, stream: Readable, *, platform: Platform | None = None, place: str, progress: Progress | None = None
) -> list[Loaded]:
    """Load all images of an archive (with `platform` only that variant of each). `place` is the archive in errors.

    Raises LayerError, StoreError; then nothing was loaded and nothing is left behind.
    """
    try:
        with store.lease(), store.scratch() as scratch:
            contents = read_contents(stream, store.layout, scratch, place=place, progress=progress, limits=store.limits)
            blobs = Blobs(store, contents, scratch)
            images = _Loader(contents, blobs, platform).read()
            blobs.keep()
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
    """The work on one archive, whose `blobs` are gathered."""

    def __init__(self, contents: Contents, blobs: Blobs, platform: Platform | None) -> None:
        self._contents = contents
        self._blobs = blobs
        self._platform = platform
        self._included: dict[tuple[str, str, int, int], bool] = {}  # what `_include` found, of what and how deep
        self._platforms: dict[str, Platform] = {}  # of manifests, by digest

    def read(self) -> list[Loaded]:
        """The images of the archive, verified."""
        contents = self._contents
        saved = read_saved(contents)
        index = contents.find("index.json")
        if index is not None:
            images = self._from_layout(decode(contents.document("index.json", index), Index, "index.json"), saved)
        elif saved:
            images = self._from_docker(saved)
        else:
            raise LayerError(
                "this is no image archive: it has neither index.json nor manifest.json", place=contents.place,
                remedy="'builder import' makes an image of a file system's archive",
            )  # fmt: skip
        if not images:
            what = "image" if self._platform is None else f"image for {self._platform}"
            raise LayerError(f"the archive has no {what}", place=contents.place)
        return images

    def _from_docker(self, saved: list[Saved]) -> list[Loaded]:
        images = DockerImages(self._contents, self._blobs, self._platform)
        return [Loaded.of(made, entry.names()) for entry in saved if (made := images.make(entry)) is not None]

    # --- OCI layouts

    def _from_layout(self, index: Index, saved: list[Saved]) -> list[Loaded]:
        names: dict[str, list[Reference]] = {}
        entries: dict[str, Descriptor] = {}
        by_config: dict[str, list[Saved]] = {}
        for one in saved:
            if (piece := self._contents.find(one.config)) is not None:
                by_config.setdefault(piece.digest, []).append(one)
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
                names[digest] = self._docker_names(entry, by_config)
        return [Loaded.of(entry, names[digest]) for digest, entry in entries.items()]

    def _docker_names(self, entry: Descriptor, saved: dict[str, list[Saved]]) -> list[Reference]:
        """The names that manifest.json, beside the index, has for an image without one."""
        if entry.media_type in INDEXES or not saved:
            return []
        config = decode(self._blobs.document(entry), Manifest, entry.digest).config.digest
        return [name for one in saved.get(config, ()) for name in one.names()]

    def _include(self, descriptor: Descriptor, depth: int) -> Descriptor | None:
        """Take an index or manifest with all that is in the archive of it; None if that is not enough for an image.
        What many indexes list, or one many times, is looked at once."""
        key = descriptor.digest, descriptor.media_type, descriptor.size, depth
        if key not in self._included:
            self._included[key] = self._take_all(descriptor, depth)
        return without_names(descriptor) if self._included[key] else None

    def _take_all(self, descriptor: Descriptor, depth: int) -> bool:
        if self._blobs.find(descriptor) is None:
            return False
        if descriptor.media_type in INDEXES:
            if not depth:
                raise LayerError("indexes are nested too deeply", place=self._contents.place)
            index = decode(self._blobs.document(descriptor), Index, descriptor.digest)
            included = [self._include(child, depth - 1) for child in index.manifests]
            if not any(included):
                return False
        elif descriptor.media_type in MANIFESTS:
            if not self._include_manifest(decode(self._blobs.document(descriptor), Manifest, descriptor.digest)):
                return False
        else:
            raise LayerError(f"unknown kind of image {descriptor.media_type!r}", place=self._contents.place)
        self._blobs.take(descriptor)
        return True

    def _include_manifest(self, manifest: Manifest) -> bool:
        parts = [manifest.config, *manifest.layers]
        if any(self._blobs.find(part) is None for part in parts):
            return False
        layers = [layer for layer in manifest.layers if layer.media_type.startswith((OCI_LAYER, DOCKER_LAYER))]
        if layers:
            config = decode(self._blobs.document(manifest.config), ImageConfig, manifest.config.digest)
            diff_ids = config.rootfs.diff_ids or []
            if len(diff_ids) != len(manifest.layers):
                raise LayerError(
                    f"the manifest has {len(manifest.layers)} layers, its configuration {len(diff_ids)}",
                    place=self._contents.place,
                )
            for diff_id, layer in zip(diff_ids, manifest.layers, strict=True):
                self._blobs.verify(diff_id, layer)
        for part in parts:
            self._blobs.take(part)
        return True

    def _variant(self, descriptor: Descriptor) -> Descriptor | None:
        """The manifest for the platform that was asked for, None if the image has none."""
        if descriptor.media_type in INDEXES:
            index = decode(self._blobs.document(descriptor), Index, descriptor.digest)
            candidates = [child for child in index.manifests if self._blobs.holds(child.digest)]
        else:
            candidates = [descriptor]
        for candidate in candidates:
            if candidate.media_type in MANIFESTS and self._platform_of(candidate) == self._platform:
                return msgspec.structs.replace(candidate, annotations=None)
        return None

    def _platform_of(self, manifest: Descriptor) -> Platform | None:
        if manifest.platform is not None:
            return manifest.platform.normalised()
        if manifest.digest not in self._platforms:
            config = decode(self._blobs.document(manifest), Manifest, manifest.digest).config
            found = decode(self._blobs.document(config), ImageConfig, config.digest).platform()
            self._platforms[manifest.digest] = found
        return self._platforms[manifest.digest]


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
