"""What is in the build cache, as people list and choose it: records of steps and memos, and cache mounts."""

from __future__ import annotations

import re
from collections.abc import Callable, Set

import msgspec

from builder.oci.layout import Layout
from builder.store.collect import Needed, Walker
from builder.store.leases import held
from builder.store.mounts import StoredMount, stored_mounts, unused_mounts
from builder.store.records import Holding
from builder.store.store import Store

REGULAR = "regular"
CACHE_MOUNT = "exec.cachemount"
TYPES = (REGULAR, CACHE_MOUNT)
"""Those of BuildKit's types of records (client/diskusage.go) that are here: contexts, checkouts of git and frontends
are not kept, and no record is for internal use alone."""

_PLACE = re.compile(r"\|[a-z0-9]+/[a-z0-9_]+(?:/[a-z0-9.]+)?\|([^|]*)\|(.*)", re.DOTALL)
"""The end of a step's lineage: its platform, its stage and its instruction."""


class CacheRecord(msgspec.Struct, frozen=True):
    """One thing of the build cache. `used` is when it last was, in seconds since the epoch; it is `shared` if an image
    has what it keeps, too, and `in_use` if a running build uses it."""

    id: str
    type: str
    description: str
    used: float
    shared: bool
    in_use: bool
    item: Holding | StoredMount


Choice = Callable[[CacheRecord], bool]


def cache_records(store: Store) -> list[CacheRecord]:
    """All that is in the build cache, least recently used first. Raises StoreError."""
    layout = Layout(store.root, store.temporary)
    walker = Walker(layout, lenient=True)
    of_images = Needed()
    walker.reach((entry.descriptor.digest for entry in store.images.all()), of_images)
    kept, pins = of_images.diff_ids | of_images.blobs, held(store.leases)
    lineages = store.database.lineages()
    found = [
        CacheRecord(
            one.key,
            REGULAR,
            _description(one, lineages.get(one.key, "")),
            one.used,
            is_kept(walker, one, kept),
            one.holds in pins,
            one,
        )
        for one in store.database.holdings()
    ]
    unused = set(unused_mounts(store))
    found += [
        CacheRecord(one.name, CACHE_MOUNT, f"cached mount {one.id}", one.used, False, one not in unused, one)
        for one in stored_mounts(store)
    ]
    return sorted(found, key=lambda record: record.used)


def is_kept(walker: Walker, holding: Holding, kept: Set[str]) -> bool:
    """Whether what a record keeps is `kept` by others too. A manifest (of a base image) is if all of its layers are.
    The walker is one that keeps nothing by a lease of ours."""
    if holding.holds in kept:
        return True
    layers = walker.layers(holding.holds)
    return bool(layers) and all(digest in kept for digest in layers)


def _description(holding: Holding, lineage: str) -> str:
    """The stage and the instruction of a step; what a memo is for."""
    kind = holding.kind.rpartition("-")[0]
    if kind in ("", "members"):
        place = _PLACE.search(holding.key if kind else lineage)
        return f"{'files of ' if kind else ''}[{place[1]}] {place[2]}" if place else ""
    return {"image": f"pulled from {holding.key}", "url": "download", "squash": "squashed layers"}.get(kind, kind)
