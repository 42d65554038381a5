"""What is known of the images of a store: the rows of `images`, the document of `inspect`, the lines of `history`.

Sizes are those of the uncompressed layers where they are known (a layer that was made, loaded or unpacked here); for
others the stored size counts, which is what a registry would transfer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from builder.errors import DiskFull, StoreError
from builder.oci.platform import host_platform
from builder.oci.reference import Reference
from builder.oci.spec import INDEXES, Descriptor, History, ImageConfig, Manifest, Platform
from builder.store.images import Images, NoSuchVariant, StoredImage
from builder.store.store import Store

_CHECK = "run 'builder fsck'"
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)")


class PlatformImage(msgspec.Struct, frozen=True):
    """One manifest. `config` is None for what is no image (an attestation), or is damaged. `size` counts layers;
    `stored` the bytes of all its blobs as they are kept."""

    descriptor: Descriptor
    image_id: str
    size: int
    stored: int
    manifest: Manifest | None = None
    config: ImageConfig | None = None

    @property
    def platform(self) -> Platform | None:
        return self.config.platform() if self.config is not None else None


class Summary(msgspec.Struct, frozen=True):
    """One name of an image, or None. `created` is None where no configuration says it; `platforms` has one entry for
    each manifest that is here."""

    reference: Reference | None
    descriptor: Descriptor
    image_id: str
    created: datetime | None
    size: int
    labels: dict[str, str]
    platforms: tuple[PlatformImage, ...]

    @property
    def is_index(self) -> bool:
        return self.descriptor.media_type in INDEXES


class HistoryRow(msgspec.Struct, frozen=True):
    """A line of history with the size of its layer; `image_id` is '' for all but the newest."""

    image_id: str
    line: History
    size: int


class Describer:
    """Describes the images of one store; what was read once is kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._images: Images = store.images
        self._sizes: dict[str, int] | None = None
        self._known: dict[str, PlatformImage] = {}

    def summaries(self) -> list[Summary]:
        """Every name and every dangling image, newest first; what bears the same time in the order it was named."""
        found = [self.summary(entry) for entry in reversed(self._images.all())]
        return sorted(found, key=lambda row: row.created or datetime.min.replace(tzinfo=UTC), reverse=True)

    def summary(self, entry: StoredImage) -> Summary:
        descriptor = entry.descriptor
        platforms = self.platforms(descriptor)
        chosen = self._preferred(platforms)
        config = chosen.config if chosen else None
        image_id = descriptor.digest if descriptor.media_type in INDEXES or chosen is None else chosen.image_id
        return Summary(
            entry.reference,
            descriptor,
            image_id,
            parse_time(config.created) if config else None,
            sum(image.size for image in platforms),
            (config.config.labels if config else None) or {},
            platforms,
        )

    def platforms(self, descriptor: Descriptor) -> tuple[PlatformImage, ...]:
        """The manifests of an image that are here."""
        try:
            return self._platforms(descriptor)
        except StoreError:
            return ()

    def _platforms(self, descriptor: Descriptor) -> tuple[PlatformImage, ...]:
        return tuple(self._platform(manifest) for manifest in self._images.manifests(descriptor))

    def choose(self, image: StoredImage, platform: Platform | None) -> PlatformImage:
        """The manifest for a platform; without one that for this machine, or the first. Raises NoSuchVariant,
        StoreError."""
        name = image.reference.familiar if image.reference else image.descriptor.digest
        try:
            found = [entry for entry in self._platforms(image.descriptor) if entry.config is not None]
        except DiskFull:
            raise
        except StoreError as error:
            raise _unreadable(name, error) from error
        if platform is not None:
            found = [entry for entry in found if entry.platform == platform]
            if not found:
                raise NoSuchVariant(f"the image has no variant for {platform} here", place=name)
        chosen = self._preferred(found)
        if chosen is None:
            raise self._why_unreadable(name, image.descriptor)
        return chosen

    def _why_unreadable(self, name: str, descriptor: Descriptor) -> StoreError:
        """The error about an image without a configuration that can be read."""
        for manifest in self._images.manifests(descriptor):
            try:
                self._images.config(manifest)
            except StoreError as error:
                return _unreadable(name, error)
        return StoreError("nothing of the image is here", place=name, remedy=_CHECK)

    def history(self, image: PlatformImage) -> list[HistoryRow]:
        """Newest first."""
        assert image.manifest is not None
        assert image.config is not None
        sizes = iter([self.layer_size(layer) for layer in image.manifest.layers])
        rows = [HistoryRow("", line, 0 if line.empty_layer else next(sizes, 0)) for line in image.config.history or ()]
        rows.reverse()
        if rows:
            rows[0] = msgspec.structs.replace(rows[0], image_id=image.image_id)
        return rows

    def layer_size(self, layer: Descriptor) -> int:
        if self._sizes is None:
            self._sizes = self._known_sizes()
        return self._sizes.get(layer.digest) or layer.size

    def _known_sizes(self) -> dict[str, int]:
        if not os.path.exists(os.path.join(self._store.root, "cache.db")):
            return {}
        try:
            return {record.digest: record.uncompressed for record in self._store.database.all_layers()}
        except StoreError:
            return {}  # a lost cache must not keep anybody from listing images

    def _preferred(self, images: Sequence[PlatformImage]) -> PlatformImage | None:
        host = host_platform()
        readable = [image for image in images if image.config is not None]
        return next((image for image in readable if image.platform == host), readable[0] if readable else None)

    def _platform(self, descriptor: Descriptor) -> PlatformImage:
        known = self._known.get(descriptor.digest)
        if known is None:
            known = self._known[descriptor.digest] = self._read(descriptor)
        return known

    def _read(self, descriptor: Descriptor) -> PlatformImage:
        try:
            manifest = self._images.manifest(descriptor)
        except DiskFull:
            raise
        except StoreError:
            return PlatformImage(descriptor, descriptor.digest, 0, 0)
        layers = manifest.layers
        size = sum(self.layer_size(layer) for layer in layers)
        stored = descriptor.size + manifest.config.size + sum(layer.size for layer in layers)
        image_id = manifest.config.digest
        platform = descriptor.platform
        if platform is not None and platform.os == "unknown":
            return PlatformImage(descriptor, image_id, size, stored, manifest)
        try:
            config = self._images.config(descriptor)
        except DiskFull:
            raise
        except StoreError:
            return PlatformImage(descriptor, image_id, size, stored, manifest)
        return PlatformImage(descriptor, image_id, size, stored, manifest, config)


def _unreadable(name: str, error: StoreError) -> StoreError:
    return StoreError(f"the image cannot be read: {error.cause}", place=name, remedy=_CHECK)


def parse_time(text: str | None) -> datetime | None:
    """An RFC 3339 time; digits beyond microseconds are cut. None for what is none."""
    match = _TIME.fullmatch(text or "")
    if match is None:
        return None
    day, clock, fraction, zone = match.groups()
    try:
        return datetime.fromisoformat(f"{day}T{clock}.{(fraction or '0')[:6]:<06}{'+00:00' if zone in 'Zz' else zone}")
    except ValueError:
        return None
