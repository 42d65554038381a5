"""An image as an OCI layout directory (`type=oci,tar=false`)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from builder.errors import StoreError
from builder.export.archive import ArchivedImage, index_entries
from builder.oci.layout import Layout
from builder.oci.reference import DEFAULT_TAG
from builder.oci.spec import IMAGE_NAME, REF_NAME, Descriptor
from builder.store.store import Store


def write_layout(store: Store, images: Sequence[ArchivedImage], destination: str) -> None:
    """Add the images to the layout at `destination`, which is made if it is not there. Raises StoreError."""
    layout = Layout(destination)
    with layout.writing():
        for image in images:
            for descriptor in _blobs(store, image.descriptor):
                _copy(store, layout, descriptor)
            _enter(layout, image)


def _enter(layout: Layout, image: ArchivedImage) -> None:
    """List the image, instead of what had its names. One without a name is `latest`, as BuildKit has it."""
    with layout.changing() as manifests:
        for entry in index_entries(image):
            named = entry if image.names else _latest(entry)
            manifests[:] = [other for other in manifests if _names(other) != _names(named)] + [named]


def _latest(entry: Descriptor) -> Descriptor:
    annotations = {**(entry.annotations or {}), REF_NAME: DEFAULT_TAG}
    return msgspec.structs.replace(entry, annotations=annotations)


def _names(entry: Descriptor) -> tuple[str | None, str | None]:
    annotations = entry.annotations or {}
    return annotations.get(IMAGE_NAME), annotations.get(REF_NAME)


def _blobs(store: Store, descriptor: Descriptor) -> list[Descriptor]:
    found = [descriptor]
    for manifest in store.images.complete(descriptor):
        inner = store.images.manifest(manifest)
        found += [manifest, inner.config, *inner.layers]
    return found


def _copy(store: Store, layout: Layout, descriptor: Descriptor) -> None:
    if layout.has(descriptor.digest):
        return
    try:
        with store.layout.open(descriptor.digest) as source:
            layout.receive(source, descriptor.digest)
    except OSError as error:
        raise StoreError(f"cannot write the layout: {error.strerror}", place=layout.path) from error
