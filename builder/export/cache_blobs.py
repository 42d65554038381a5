"""The layers, cache mounts and documents that a cache consists of."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO

from builder.export.cache_options import CacheTarget
from builder.export.cache_steps import SolvedSteps
from builder.filesystem.compression import ZSTD, kind_of
from builder.oci import reference as references
from builder.oci.spec import OCI_LAYER, Descriptor, digest_of
from builder.solver.cache_records import MountRecord
from builder.solver.commit import layer_type
from builder.solver.external import Offer
from builder.store.layers import CACHE
from builder.store.mounts import stored_mounts, write_mount

Open = Callable[[], BinaryIO]


class CacheBlobs:
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
        elsewhere = store.layers.is_claim(record) and not store.layout.has(record.digest)
        if differs and (target.force or not elsewhere):
            record = store.layers.ensure_form(diff_id, wanted)
        elif not elsewhere and not record.uncompressed:  # what only an image says of it
            record = store.layers.ensure_form(diff_id, None)
        digest = record.digest

        def open_layer() -> BinaryIO:
            store.layers.fetch_form(record)
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
