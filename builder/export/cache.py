"""Writes the steps of a build as a cache for other machines: to a registry, to a directory, or into the image itself.

What travels are the records of every step that the build found or made, and of layers those of the result (mode=min)
or all (mode=max): base images' are in their own registries. A layer that only another cache holds is fetched when it
has to be sent, and not at all where it is there already.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from builder.errors import BuilderError, Interrupted, StoreError
from builder.export.cache_options import CacheTarget
from builder.filesystem.compression import ZSTD, kind_of
from builder.oci import reference as references
from builder.oci.layout import Layout
from builder.oci.reference import Reference
from builder.oci.spec import DOCKER_MANIFEST, OCI_LAYER, OCI_MANIFEST, REF_NAME, Descriptor, Manifest, digest_of, encode
from builder.progress import Reporter, StepDone, StepStarted, Warned
from builder.solver.annotations import Annotation
from builder.solver.cache import StepCache
from builder.solver.cache_records import (
    ANNOTATION,
    CONFIG,
    Document,
    MountRecord,
    encode_cache,
    is_text,
    names_no_parent,
    place,
)
from builder.solver.commit import layer_type
from builder.solver.external import Offer
from builder.store.builds import BuiltStep
from builder.store.collect import Needed, Walker
from builder.store.layers import CACHE, is_claim
from builder.store.mounts import stored_mounts, write_mount
from builder.store.records import StepRecord
from builder.store.store import Store

if TYPE_CHECKING:
    from builder.registry.transport import Session
    from builder.solver.secrets import Guard

_LARGEST_ANNOTATION = 2 << 20  # bytes; registries take manifests of 4 MiB

Open = Callable[[], BinaryIO]


class SolvedSteps(msgspec.Struct, frozen=True, kw_only=True):
    """What caches are made from. `lineage` is that of the build's steps, `results` the diff IDs of the layers that
    images have above their bases, `pushed` the names under which the build pushed its images; `steps` tell other
    machines why they miss the cache; `guard` keeps the build's secrets out of cache mounts that are written."""

    store: Store
    cache: StepCache
    lineage: str
    results: tuple[str, ...]
    pushed: tuple[Reference, ...] = ()
    steps: tuple[BuiltStep, ...] = ()
    session: Callable[[], Session]
    report: Reporter
    guard: Guard | None = None


def export_cache(target: CacheTarget, steps: SolvedSteps) -> None:
    """Write one cache, which is not an inline one. Raises BuilderError, unless the target wants that to be a
    warning."""
    label = f"exporting cache to {target}"
    steps.report(StepStarted(label, label))
    started = time.monotonic()
    try:
        with steps.store.scratch() as scratch:
            _write(target, steps, scratch)
    except BuilderError as error:
        steps.report(StepDone(label, label, seconds=time.monotonic() - started, error=error.cause))
        if isinstance(error, Interrupted) or not target.ignore_error:
            raise
        steps.report(Warned(f"the cache was not written to {target}: {error}"))
    else:
        steps.report(StepDone(label, label, seconds=time.monotonic() - started))


def inline_annotation(steps: SolvedSteps) -> Annotation:
    """The cache as an annotation of the image's manifest: keys and diff IDs, no recipes. Nothing else of the image
    changes, its ID neither."""
    records, free = gather(steps)
    data = encode_cache(Document((), tuple(records), free), recipes=False)
    if len(data) > _LARGEST_ANNOTATION:
        raise StoreError(
            f"the inline cache has {len(data)} bytes, more than a manifest can hold", remedy="use type=registry,ref=…"
        )
    return Annotation("manifest", ANNOTATION, data.decode())


# --- records


def gather(steps: SolvedSteps) -> tuple[list[StepRecord], frozenset[str]]:
    """The records of the build's steps as they travel, and the keys of those that name no parent.

    A step that was found by its parent was looked up no further; what is known of the same place with the same result,
    whatever the parent, comes along.
    """
    database, cache = steps.store.database, steps.cache
    found: dict[str, StepRecord] = {}
    for key in cache.used:
        if (record := database.step(key)) is not None:
            found[key] = record
    for key, record in cache.borrowed.items():
        found.setdefault(key, record)
    free = set(cache.external.free) if cache.external is not None else set()
    for record in list(found.values()):
        for equal in _equal_steps(steps, record):
            if equal.key in free or (equal.recipe and names_no_parent(equal.recipe)):
                found.setdefault(equal.key, equal)
    free.update(key for key, record in found.items() if record.recipe and names_no_parent(record.recipe))
    travelling = [
        msgspec.structs.replace(record, lineage=place(record.lineage, steps.lineage)) for record in found.values()
    ]
    return travelling, frozenset(free.intersection(found))


def _equal_steps(steps: SolvedSteps, record: StepRecord) -> list[StepRecord]:
    found = steps.store.database.equal_steps(record.lineage, record.diff_id)
    if steps.cache.external is not None:
        found += steps.cache.external.equal_steps(record.lineage, record.diff_id)
    return found


# --- blobs


class _Blobs:
    """The blobs of a cache: what they are, and how each is opened when it must be sent."""

    def __init__(self, steps: SolvedSteps, scratch: str) -> None:
        self._steps = steps
        self._scratch = scratch
        self._opens: dict[str, Open] = {}
        self.layers: list[Descriptor] = []
        self.origins: dict[str, list[str]] = {}

    def open(self, digest: str) -> BinaryIO:
        return self._opens[digest]()

    def add_document(self, data: bytes, media_type: str) -> Descriptor:
        from io import BytesIO

        digest = digest_of(data)
        self._opens[digest] = lambda: BytesIO(data)
        return Descriptor(media_type, digest, len(data))

    def add_layer(self, diff_id: str, target: CacheTarget) -> bool:
        """Add a layer, if anybody has it. One that only a cache has is fetched when it is opened."""
        store = self._steps.store
        record = store.layers.record(diff_id)
        if record is None:
            return False
        wanted = target.compression
        differs = wanted is not None and kind_of(record.media_type) != wanted.kind
        if differs and (target.force or not is_claim(record)):
            record = store.layers.ensure_form(diff_id, wanted)
        digest = record.digest

        def open_layer() -> BinaryIO:
            if not store.layout.has(digest):
                store.layers.ensure_blob(diff_id)
            return store.layout.open(digest)

        self._opens[digest] = open_layer
        self.layers.append(Descriptor(layer_type(record.media_type, target.docker_types), digest, record.size))
        self.origins[digest] = list(self._homes(diff_id, target))
        return True

    def _homes(self, diff_id: str, target: CacheTarget) -> Iterator[str]:
        """The repositories of the target's registry from which a layer can be mounted: where the build has pushed it,
        and where it came from."""
        if target.reference is None:
            return
        if diff_id in self._steps.results:
            yield from (name.path for name in self._steps.pushed if name.domain == target.reference.domain)
        for record in self._steps.store.database.layers(diff_id):
            origin = record.origin.removeprefix(CACHE)
            if origin and not origin.startswith("oci-layout:"):
                home = references.parse(origin)
                if home.domain == target.reference.domain:
                    yield home.path

    def add_mounts(self, mount_id: str) -> list[MountRecord]:
        """Add the cache mounts of an id; those that a cache offers, where no step has used the id here. [] if there is
        none at all."""
        found = []
        for mount in stored_mounts(self._steps.store):
            if mount.id == mount_id and "." not in mount.name:
                from builder.filesystem.compress import LayerSink
                from builder.filesystem.tar import TarWriter

                with LayerSink(self._scratch, compression=ZSTD, sync=False) as sink:
                    guard = self._steps.guard
                    where = f"the cache, in the mount {mount_id}"
                    writer = TarWriter(sink.write) if guard is None else guard.writer(sink.write, where)
                    write_mount(mount, writer)
                    writer.close()
                    blob = sink.finish()
                self._opens[blob.digest] = partial(_open, blob.path)
                self.layers.append(Descriptor(blob.media_type, blob.digest, blob.size))
                found.append(MountRecord(mount.id, mount.name))
        external = self._steps.cache.external
        if found or external is None:
            return found
        for name, known in sorted(external.mounts.items()):
            if known.id == mount_id:
                self._add_offer(known.offer)
                found.append(MountRecord(mount_id, name))
        return found

    def _add_offer(self, offer: Offer) -> None:
        def fetch() -> BinaryIO:
            file = open(os.path.join(self._scratch, offer.descriptor.digest.partition(":")[2]), "w+b")  # noqa: SIM115
            self._steps.store.layers.fetch(offer.origin, offer.descriptor, file)
            file.seek(0)
            return file

        self._opens[offer.descriptor.digest] = fetch
        self.layers.append(Descriptor(f"{OCI_LAYER}+zstd", offer.descriptor.digest, offer.descriptor.size))


def _open(path: str) -> BinaryIO:
    return open(path, "rb")


# --- writing


def _write(target: CacheTarget, steps: SolvedSteps, scratch: str) -> None:
    records, free = gather(steps)
    blobs = _Blobs(steps, scratch)
    wanted: Iterable[str] = dict.fromkeys(record.diff_id for record in sorted(records, key=lambda one: one.key))
    if not target.everything:
        wanted = [diff_id for diff_id in wanted if diff_id in steps.results]
    layers = [diff_id for diff_id in wanted if blobs.add_layer(diff_id, target)]
    mounts = []
    for mount_id in target.mounts:
        found = blobs.add_mounts(mount_id) if is_text(mount_id) else []
        if not found:
            steps.report(Warned(f"there is no cache mount {mount_id!r}, so none travels in {target}"))
        mounts += found
    document = Document(tuple(layers), tuple(records), free, tuple(mounts), steps.steps)
    config = blobs.add_document(encode_cache(document, recipes=target.recipes), CONFIG)
    manifest = Manifest(
        schema_version=2,
        media_type=DOCKER_MANIFEST if target.docker_types else OCI_MANIFEST,
        config=config,
        layers=blobs.layers,
    )
    descriptor = blobs.add_document(encode(manifest), manifest.media_type)
    if target.reference is not None:
        from builder.registry.push import push

        push(
            steps.session(),
            target.reference,
            descriptor,
            blobs.open,
            origins=lambda: blobs.origins,
            reporter=steps.report,
        )
    else:
        _write_layout(target, descriptor, [*blobs.layers, config], blobs)


def _write_layout(target: CacheTarget, manifest: Descriptor, parts: list[Descriptor], blobs: _Blobs) -> None:
    """Add the cache to the layout, in the place of the one with its tag; the tag changes last."""
    layout = Layout(target.path)
    with layout.writing() as is_alone:
        for descriptor in (*parts, manifest):
            if not layout.has(descriptor.digest):
                _copy(layout, descriptor, blobs)
        with layout.changing() as entries:
            entries[:] = [entry for entry in entries if (entry.annotations or {}).get(REF_NAME) != target.tag]
            entries.append(msgspec.structs.replace(manifest, annotations={REF_NAME: target.tag}))
        if target.reset and is_alone():  # what others write may have no name yet: then the next reset removes the rest
            _remove_unneeded(layout)


def _remove_unneeded(layout: Layout) -> None:
    """Remove the blobs that no entry of the layout refers to."""
    needed = Needed()
    Walker(layout).reach([entry.digest for entry in layout.index().manifests], needed)
    for digest in layout.digests():
        if digest not in needed.blobs:
            with suppress(FileNotFoundError):
                os.unlink(layout.blob_path(digest))


def _copy(layout: Layout, descriptor: Descriptor, blobs: _Blobs) -> None:
    from shutil import copyfileobj

    temporary = os.path.join(layout.temporary, f"blob.{os.urandom(6).hex()}")
    try:
        with blobs.open(descriptor.digest) as source, open(temporary, "xb") as file:
            copyfileobj(source, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"cannot write the cache: {error.strerror}", place=layout.path) from error
    layout.adopt(temporary, descriptor.digest)
