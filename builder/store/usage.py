"""What takes space in a store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Set

import msgspec

from builder.oci.layout import Layout
from builder.store.cached import CacheRecord
from builder.store.collect import Needed, Walker, needed, tree_size
from builder.store.describe import Summary
from builder.store.failed import FailedStates
from builder.store.leases import held
from builder.store.mounts import StoredMount, stored_mounts, unused_mounts
from builder.store.store import Store


class Usage(msgspec.Struct, frozen=True):
    """One kind of things: how many, how many of them are in use, their bytes, and how many bytes `prune` would free."""

    kind: str
    total: int
    active: int
    size: int
    reclaimable: int


class Share(msgspec.Struct, frozen=True):
    """An image's stored bytes: those that other images have too, and its own."""

    image: Summary
    shared: int
    unique: int


def usage(store: Store) -> list[Usage]:
    """Images, build cache, unpacked layers, cache mounts, kept failed steps, and unfinished or unneeded data. Each blob
    counts once."""
    layout = Layout(store.root, store.temporary)
    sizes = blob_sizes(layout)
    entries = store.images.all()
    holdings = store.database.holdings()
    pins = held(store.leases)
    named = _reached(layout, [entry.descriptor.digest for entry in entries if entry.reference is not None])
    of_images = _reached(layout, [entry.descriptor.digest for entry in entries])
    everything = needed(store, holdings, pins)
    cached = everything.blobs - of_images.blobs
    in_use = [holding for holding in holdings if holding.holds in of_images.diff_ids | of_images.blobs]
    names = {entry.descriptor.digest for entry in entries if entry.reference is not None}

    def total(digests: set[str]) -> int:
        return sum(sizes.get(digest, 0) for digest in digests)

    return [
        Usage(
            "Images",
            len({entry.descriptor.digest for entry in entries}),
            len(names),
            total(of_images.blobs),
            total(of_images.blobs - named.blobs),
        ),
        Usage("Build Cache", len(holdings), len(in_use), total(cached), total(cached - pins)),
        _snapshots(store, of_images),
        _mounts(store),
        _failed(store),
        _rest(store, sizes, everything.blobs),
    ]


def shares(store: Store, images: list[Summary]) -> list[Share]:
    """How much of each image others have as well."""
    layout = Layout(store.root, store.temporary)
    reached = {image.descriptor.digest: _reached(layout, [image.descriptor.digest]).blobs for image in images}
    found = []
    for image in images:
        own = reached[image.descriptor.digest]
        others: set[str] = set()
        for digest, blobs in reached.items():
            if digest != image.descriptor.digest:
                others |= blobs
        shared = sum(_size(layout.blob_path(digest)) for digest in own & others)
        found.append(Share(image, shared, sum(_size(layout.blob_path(digest)) for digest in own - others)))
    return found


def record_sizes(store: Store, records: Iterable[CacheRecord]) -> list[int]:
    """The bytes that each record of the build cache keeps."""
    layout = Layout(store.root, store.temporary)
    blobs: dict[str, int] = {}
    for layer in store.database.all_layers():
        blobs[layer.diff_id] = blobs.get(layer.diff_id, 0) + _size(layout.blob_path(layer.digest))
    found = []
    for item in (record.item for record in records):
        if isinstance(item, StoredMount):
            found.append(tree_size(item.path))
        elif item.holds in blobs:
            found.append(blobs[item.holds])
        else:
            found.append(sum(_size(layout.blob_path(digest)) for digest in _reached(layout, [item.holds]).blobs))
    return found


def _reached(layout: Layout, roots: list[str]) -> Needed:
    found = Needed()
    Walker(layout, lenient=True).reach(roots, found)
    return found


def blob_sizes(layout: Layout) -> dict[str, int]:
    """The bytes of all blobs, by digest."""
    return {digest: _size(layout.blob_path(digest)) for digest in layout.digests()}


def unpacked_layers(store: Store) -> Iterator[tuple[str, str]]:
    """The diff ID and the directory of each unpacked layer; one may be there several times."""
    for directory in (one.entries.directory for one in store.all_snapshots()):
        for name in _names(directory):
            if len(name) >= 64 and not name.startswith(("tmp-", "gone-")):
                yield f"sha256:{name[:64]}", os.path.join(directory, name)


def _snapshots(store: Store, of_images: Needed) -> Usage:
    count = active = size = free = 0
    for diff_id, path in unpacked_layers(store):
        taken = tree_size(path)
        count += 1
        size += taken
        if diff_id in of_images.diff_ids:
            active += 1
        else:
            free += taken
    return Usage("Unpacked Layers", count, active, size, free)


def _mounts(store: Store) -> Usage:
    """They stay as long as a running build uses them, as all that `prune` leaves."""
    count, unused = len(stored_mounts(store)), unused_mounts(store)
    free = sum(tree_size(mount.path) for mount in unused)
    return Usage("Cache Mounts", count, count - len(unused), tree_size(store.mounts), free)


def _failed(store: Store) -> Usage:
    """The failed steps that are kept for `debug`. They stay until `prune`, or until their build goes well."""
    states = FailedStates(store.root, store.temporary)
    size = tree_size(states.path)
    return Usage("Failed Steps", len(states.names()), 0, size, size)


def _rest(store: Store, sizes: Mapping[str, int], kept: Set[str]) -> Usage:
    """What is unfinished, and the blobs and beginnings of blobs that the next collection removes."""
    partial = {f"sha256:{name}": _size(os.path.join(store.partial, name)) for name in _names(store.partial)}
    unneeded = [size for known in (sizes, partial) for digest, size in known.items() if digest not in kept]
    beginnings = sum(size for digest, size in partial.items() if digest in kept)
    free = sum(unneeded)
    return Usage("Other", len(unneeded), 0, free + beginnings + tree_size(store.temporary), free)


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
