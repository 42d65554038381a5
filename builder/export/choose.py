"""Which images `save` writes, and under which names."""

from __future__ import annotations

from collections.abc import Sequence

from builder.errors import InvalidReference, StoreError
from builder.export.archive import ArchivedImage
from builder.oci import reference as references
from builder.oci.reference import Reference
from builder.oci.spec import Descriptor, Platform, is_image
from builder.store.images import StoredImage
from builder.store.store import Store


def choose_images(store: Store, texts: Sequence[str], platform: Platform | None) -> list[ArchivedImage]:
    """Each image once, with all the names by which it was asked for; one platform of several does not have the digest
    that a name may have. Raises StoreError."""
    names: dict[str, list[Reference]] = {}
    descriptors: dict[str, Descriptor] = {}
    for text in texts:
        for entry in _entries(store, text):
            descriptor = entry.descriptor if platform is None else _for_platform(store, entry, platform, text)
            descriptors[descriptor.digest] = descriptor
            given = names.setdefault(descriptor.digest, [])
            name = entry.reference
            if name is not None and name not in given and name.digest in (None, descriptor.digest):
                given.append(name)
    return [ArchivedImage(descriptors[digest], tuple(given)) for digest, given in names.items()]


def _entries(store: Store, text: str) -> list[StoredImage]:
    """What a text stands for: every tag of a repository, one name, or (by its ID) an image without names."""
    try:
        wanted = references.parse(text, default_tag=False)
    except InvalidReference:
        wanted = None
    if wanted is not None and wanted.tag is None and wanted.digest is None:
        of_repository = [
            entry for entry in store.images.all() if entry.reference is not None and entry.reference.name == wanted.name
        ]
        if of_repository:
            return of_repository
    named = store.images.named(text)
    if named is not None and wanted is not None and wanted.digest is None:
        return [named]
    return [StoredImage(None, store.images.find(text).descriptor)]


def _for_platform(store: Store, entry: StoredImage, platform: Platform, text: str) -> Descriptor:
    for manifest in store.images.complete(entry.descriptor):
        if is_image(manifest) and store.images.config(manifest).platform() == platform:
            return manifest
    raise StoreError(f"the image has no variant for {platform} here", place=text)
