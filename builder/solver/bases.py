"""Base images: looked up in the store, an OCI layout or a registry; their layers stay where they are until needed.

An image that was resolved once is remembered with its manifest, so that the next build opens no connection; `pull`
asks the registry again.
"""

# No postponed annotations: msgspec would compile each of them before it first decodes one of the classes here.
import os
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from builder.errors import BuilderError, Interrupted, NotFoundError, OfflineError, StoreError
from builder.oci import reference as references
from builder.oci.layout import Layout
from builder.oci.spec import (
    IMAGE_NAME,
    INDEXES,
    REF_NAME,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    PlatformRecord,
    decode,
    paired_layers,
    refuse_nul,
)
from builder.plan.steps import ImageKey
from builder.progress import Reporter, StepDone, StepStarted, Transfer
from builder.registry.platforms import DEEPEST, select
from builder.store.layers import CACHE
from builder.store.records import LayerRecord
from builder.store.store import Store

if TYPE_CHECKING:
    from builder.registry.transport import Session

_KIND = "image-1"
_LAYOUT = "oci-layout:"


class _Remembered(msgspec.Struct, frozen=True):
    """The manifest that a reference stood for, as it was resolved; `named` is the digest of what has the name, perhaps
    an index."""

    media_type: str
    digest: str
    size: int
    named: str = ""


class Bases:
    """Resolves the images of one build. `connect` opens the session with the registries when one is needed; with
    `offline` none is. `named_digests` has what the name of each resolved image stands for: a manifest,
    or an index."""

    def __init__(
        self,
        store: Store,
        connect: "Callable[[], Session]",
        report: Reporter,
        *,
        pull: bool = False,
        offline: bool = False,
    ) -> None:
        self.store = store
        self._connect = connect
        self._report = report
        self._pull = pull
        self.offline = offline
        self.named_digests: dict[ImageKey, str] = {}
        self._session: Session | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._stated: dict[ImageKey, tuple[LayerRecord, ...]] = {}
        self._digests: dict[ImageKey, str] = {}
        store.layers.fetch = self._fetch

    def layers(self, key: ImageKey) -> tuple[str, ...]:
        """The diff IDs of an image that was resolved."""
        return tuple(record.diff_id for record in self._stated[key])

    def stated(self, key: ImageKey) -> tuple[LayerRecord, ...]:
        """The blobs that the manifest of a resolved image names, as the layers that its configuration says they are."""
        return self._stated[key]

    def digest(self, key: ImageKey) -> str:
        """The digest of the manifest of an image that was resolved; '' of one that was not."""
        return self._digests.get(key, "")

    def resolve(self, key: ImageKey) -> ImageConfig:
        """An image's configuration; its layers are known afterwards, not fetched."""
        if key.layout:
            return self._from_layout(key)
        local = None if self._pull else self._from_store(key) or self._from_memory(key)
        if local is None and self.offline:
            name = references.parse(key.reference).familiar
            raise OfflineError(
                f"the build is offline and lacks the image {name} for {key.platform}",
                remedy="pull the image, or build once without --offline",
            )
        return local or self._from_registry(key)

    def absent_layers(self, keys: Iterable[ImageKey]) -> list[str]:
        """Which of these images lack layers that only a registry has, in words."""
        found = []
        for key in keys:
            diff_ids = self.layers(key)
            absent = [diff_id for diff_id in diff_ids if not self._has_near(diff_id)]
            if absent:
                name = references.parse(key.reference).familiar if not key.layout else key.layout
                found.append(f"{len(absent)} of {len(diff_ids)} layers of {name} for {key.platform}")
        return found

    def _has_near(self, diff_id: str) -> bool:
        """Whether any form of a layer needs no registry."""
        best = self.store.layers.record(diff_id)
        if best is None or self._is_near(best):
            return best is not None
        return any(self._is_near(record) for record in self.store.layers.forms(diff_id))

    def _is_near(self, record: LayerRecord) -> bool:
        return record.origin.startswith(_LAYOUT) or self.store.layout.has(record.digest)

    # --- where it may come from

    def _from_store(self, key: ImageKey) -> ImageConfig | None:
        """An image that was built, loaded or pulled under this name, if it is for this platform."""
        stored = self.store.images.get(references.parse(key.reference))
        if stored is None:
            return None
        descriptor = self._choose(stored.descriptor, key.platform, self.store.layout)
        if descriptor is None:
            return None
        self.named_digests[key] = stored.descriptor.digest
        return self._known(key, descriptor, self.store.layout, origin="", strict=True)

    def _from_memory(self, key: ImageKey) -> ImageConfig | None:
        data = self.store.database.memo(_KIND, f"{key.reference} {key.platform}")
        if data is None:
            return None
        known = msgspec.msgpack.decode(data, type=_Remembered)
        if not self.store.layout.has(known.digest):
            return None
        descriptor = Descriptor(known.media_type, known.digest, known.size)
        self.named_digests[key] = known.named or known.digest
        return self._known(key, descriptor, self.store.layout, origin=key.reference)

    def _from_registry(self, key: ImageKey) -> ImageConfig:
        from builder.registry.pull import resolve

        label = f"[internal] load metadata for {key.reference}"
        step = f"resolve {key.reference} {key.platform}"
        self._report(StepStarted(step, label))
        try:
            image = resolve(self.session(), references.parse(key.reference), key.platform)
        except BuilderError as error:
            self._report(StepDone(step, label, error=error.cause))
            raise
        layout = self.store.layout
        layout.put(image.config_data)
        layout.put(image.manifest_data)
        descriptor = image.manifest_descriptor
        self.named_digests[key] = image.descriptor.digest
        remembered = _Remembered(descriptor.media_type, descriptor.digest, descriptor.size, image.descriptor.digest)
        self.store.database.add_memo(
            _KIND, f"{key.reference} {key.platform}", msgspec.msgpack.encode(remembered), holds=descriptor.digest
        )
        self._report(StepDone(step, label))
        return self._keep(key, descriptor.digest, image.manifest, image.config, key.reference)

    def _from_layout(self, key: ImageKey) -> ImageConfig:
        layout = Layout(key.layout)
        entry = layout_entry(layout, key.reference)
        self.named_digests[key] = entry.digest
        descriptor = self._choose(entry, key.platform, layout)
        if descriptor is None:
            raise NotFoundError(f"the layout has no image for {key.platform}", place=key.layout)
        known = self._known(key, descriptor, layout, origin=_LAYOUT + os.path.abspath(key.layout))
        if known is None:
            raise StoreError("the layout lacks the image's configuration", place=key.layout)
        return known

    def _known(
        self, key: ImageKey, descriptor: Descriptor, layout: Layout, origin: str, *, strict: bool = False
    ) -> ImageConfig | None:
        if not layout.has(descriptor.digest):
            return None  # an index that was pulled for other platforms
        manifest = decode(layout.read(descriptor.digest), Manifest, f"manifest {descriptor.digest}")
        if not layout.has(manifest.config.digest):
            return None
        config = decode(layout.read(manifest.config.digest), ImageConfig, f"configuration {manifest.config.digest}")
        if strict and not select([msgspec.structs.replace(descriptor, platform=_record(config))], key.platform):
            return None
        return self._keep(key, descriptor.digest, manifest, config, origin)

    def _keep(self, key: ImageKey, digest: str, manifest: Manifest, config: ImageConfig, origin: str) -> ImageConfig:
        layers = paired_layers(manifest, config, _name(key))
        refuse_nul(config.config, _name(key))
        self._stated[key] = tuple(self.store.layers.know(diff_id, layer, origin) for diff_id, layer in layers)
        self._digests[key] = digest
        return config

    def _choose(self, descriptor: Descriptor, platform: Platform, layout: Layout) -> Descriptor | None:
        """The best manifest of an index, or None. As with a registry, an index in it that has none is passed over."""
        pending, seen = [(descriptor, 0)], set()
        while pending:
            found, depth = pending.pop()
            if found.media_type not in INDEXES:
                return found
            if depth <= DEEPEST and found.digest not in seen and layout.has(found.digest):
                seen.add(found.digest)
                index = decode(layout.read(found.digest), Index, f"index {found.digest}")
                pending += [(entry, depth + 1) for entry in reversed(select(index.manifests, platform))]
        return None

    # --- fetching

    def session(self) -> "Session":
        """The session with the registries, opened when it is first asked for and closed by `close`."""
        with self._lock:
            if self._closed:
                raise _interrupted()
            if self._session is None:
                self._session = self._connect()
            return self._session

    def _fetch(self, origin: str, descriptor: Descriptor, file: BinaryIO) -> None:
        """Bring a layer's blob into `file`, from the layout or registry that its record names."""
        origin = origin.removeprefix(CACHE)
        if origin.startswith(_LAYOUT):
            self._copy(Layout(origin.removeprefix(_LAYOUT)), descriptor, file)
            return
        if self.offline:
            absent = self.absent_layers(sorted(self._stated))
            raise OfflineError(
                f"the build is offline and lacks a layer of {origin} that a step needs",
                details=("  not here are:", *(f"    {line}" for line in absent)) if absent else (),
                remedy="build once without --offline",
            )
        from builder.registry.blobs import fetch_blob

        name = f"{origin} {descriptor.digest[7:19]}"
        fetch_blob(
            self.session(),
            references.parse(origin),
            descriptor,
            file,
            lambda done, total: self._report(Transfer(name, done, total)),
            resume=True,
        )

    def _copy(self, layout: Layout, descriptor: Descriptor, file: BinaryIO) -> None:
        import hashlib

        hasher, size = hashlib.sha256(), 0
        file.truncate()
        with layout.open(descriptor.digest) as source:
            while piece := source.read(1 << 20):
                if self._closed:
                    raise _interrupted()
                hasher.update(piece)
                size += len(piece)
                file.write(piece)
        if f"sha256:{hasher.hexdigest()}" != descriptor.digest:
            raise StoreError(f"blob {descriptor.digest} is damaged", place=layout.path)
        if size != descriptor.size:
            cause = f"blob {descriptor.digest} has {size} bytes, not {descriptor.size} as its manifest says"
            raise StoreError(cause, place=layout.path)

    def close(self) -> None:
        """End what other threads fetch."""
        with self._lock:
            self._closed = True
        if self._session is not None:
            self._session.close()


def _interrupted() -> Interrupted:
    return Interrupted("the build was interrupted")


def _name(key: ImageKey) -> str:
    """An image for messages."""
    return f"{key.layout}:{key.reference}" if key.layout else key.reference


def layout_entry(layout: Layout, name: str) -> Descriptor:
    """The entry of a layout that has a tag or digest; with one entry and the default tag, that one."""
    manifests = layout.index().manifests
    for descriptor in manifests:
        if descriptor.digest == name or name in _names(descriptor):
            return descriptor
    if len(manifests) == 1 and name == references.DEFAULT_TAG:
        return manifests[0]
    known = ", ".join(sorted({found for descriptor in manifests for found in _names(descriptor)})) or "no names"
    raise NotFoundError(f"the layout has no image {name!r}; it has {known}", place=layout.path)


def _names(descriptor: Descriptor) -> set[str]:
    """All forms under which an entry of a layout may be asked for."""
    names = {value for key in (REF_NAME, IMAGE_NAME) if (value := (descriptor.annotations or {}).get(key))}
    return names | {name.rpartition(":")[2] for name in names if ":" in name}


def _record(config: ImageConfig) -> PlatformRecord:
    return PlatformRecord(config.architecture, config.os, variant=config.variant)
