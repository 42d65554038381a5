"""Images to registries: every name of an image is pushed, with what the registry already has left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from builder.errors import StoreError
from builder.oci import reference as references
from builder.oci.reference import Reference
from builder.oci.spec import INDEXES, Descriptor, is_image
from builder.progress import Reporter
from builder.registry.push import Pushed, push
from builder.store.records import PUSHED
from builder.store.store import Store

if TYPE_CHECKING:
    from builder.registry.transport import Session


def push_image(
    store: Store, session: Session, descriptor: Descriptor, names: Sequence[Reference], report: Reporter
) -> Pushed:
    """Push the image under all `names`, one repository after the other. Raises RegistryError.

    What is returned adds up what became of the blobs in all repositories.
    """
    repositories: dict[tuple[str, str], list[Reference]] = defaultdict(list)
    for name in names:
        repositories[name.domain, name.path].append(name)
    total = Pushed(descriptor.digest)
    for (domain, path), members in repositories.items():
        done = push(
            session,
            members[0],
            descriptor,
            store.layout.open,
            tags=[name.tag for name in members[1:] if name.tag],
            origins=partial(_origins, store, descriptor, domain),
            reporter=report,
        )
        _remember(store, domain, path, done)
        total = Pushed(
            done.digest,
            (*total.uploaded, *done.uploaded),
            (*total.mounted, *done.mounted),
            (*total.present, *done.present),
        )
    return total


def _origins(store: Store, descriptor: Descriptor, domain: str) -> dict[str, list[str]]:
    """The registry's other repositories from which blobs can be mounted: they were pushed to or pulled from."""
    from builder.store.layers import CACHE

    found: dict[str, list[str]] = {}
    for image in _images(store, descriptor):
        manifest = store.images.manifest(image)
        for blob in (manifest.config, *manifest.layers):
            if known := store.database.memo(PUSHED, f"{domain} {blob.digest}"):
                found.setdefault(blob.digest, []).append(known.decode())
        for diff_id in (store.images.config(image).rootfs.diff_ids or ()) if is_image(image) else ():
            for record in store.database.layers(diff_id):
                place = record.origin.removeprefix(CACHE)
                if place and not place.startswith("oci-layout:"):
                    origin = references.parse(place)
                    if origin.domain == domain:
                        found.setdefault(record.digest, []).append(origin.path)
    return found


def _remember(store: Store, domain: str, path: str, done: Pushed) -> None:
    """Note where the blobs are now, so that the next repository of the registry takes them over."""
    with suppress(StoreError):  # the image has been pushed: a cache that cannot be written to must not fail it
        for digest in (*done.uploaded, *done.mounted):
            store.database.add_memo(PUSHED, f"{domain} {digest}", path.encode())


def _images(store: Store, descriptor: Descriptor) -> Iterator[Descriptor]:
    """The manifests of an image that are here, also those of indexes within its index, each once."""
    seen: set[str] = set()
    waiting = [descriptor]
    while waiting:
        entry = waiting.pop()
        if entry.digest in seen:
            continue
        seen.add(entry.digest)
        if entry.media_type in INDEXES:
            waiting += reversed(store.images.manifests(entry))
        else:
            yield entry
