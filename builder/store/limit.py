"""A limit to what the build cache takes on the disk, and which of it goes for that: what was not used for longest.

What counts is what `du` shows as build cache, the unpacked layers that no image has, and the cache mounts: in BuildKit,
too, a record's size is that of its snapshot and its blob, and a cache mount is a record as others. What several records
keep counts once, and goes with the last of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from builder.oci.layout import Layout
from builder.store.collect import Needed, Walker, tree_size
from builder.store.leases import held
from builder.store.mounts import StoredMount, stored_mounts
from builder.store.records import Holding
from builder.store.room import SIZE, free_space
from builder.store.store import Store
from builder.store.usage import blob_sizes, unpacked_layers

_LARGEST_RECIPE = 64 << 10
"""Bytes. One that lists the files of a copy may have more; the recipe that names the layers below has not."""
_MOMENT = 1e-6  # seconds; times of our days as floating point numbers are no finer


class Limit(msgspec.Struct, frozen=True):
    """Bytes: how many the cache may have, how many it may have in any case, and how many are to be free on the disk.
    0 is not said."""

    max_used: int = 0
    reserved: int = 0
    min_free: int = 0

    def kept(self, used: int, free: int) -> int:
        """How many bytes a cache of `used` bytes may keep, with `free` bytes on the disk: as many as both of the other
        figures allow, and no less than what is reserved for it; with nothing but that no more either.

        As BuildKit's `calculateKeepBytes` (cache/manager.go).
        """
        allowed = [self.max_used] if self.max_used else []
        if self.min_free:
            allowed.append(used - max(self.min_free - free, 0))
        return max(min(allowed, default=0), self.reserved)


class Removable(msgspec.Struct, frozen=True):
    """What of the build cache may go, or is to go: records, and cache mounts."""

    holdings: list[Holding]
    mounts: list[StoredMount]


class _Kept(msgspec.Struct):
    """What some records or a cache mount keep, by its names as parts, and when it was last used."""

    parts: set[str]
    used: float
    holdings: list[Holding] = []
    mounts: list[StoredMount] = []


def surplus(
    store: Store,
    limit: Limit,
    candidates: Removable,
    unpacked: Iterable[tuple[str, int]] | None = None,
    mounts: Mapping[StoredMount, int] | None = None,
) -> Removable:
    """Those of the candidates that must go so that the cache is within the limit, or all that takes space of its own:
    what images and running builds have would not become free. `unpacked` are the bytes of unpacked layers, by diff ID,
    and `mounts` those of all cache mounts, if they are known. Raises StoreError."""
    if unpacked is None:
        unpacked = ((diff_id, tree_size(path)) for diff_id, path in unpacked_layers(store))
    if mounts is None:
        mounts = {mount: tree_size(mount.path) for mount in stored_mounts(store)}
    sizes = _sizes(store, unpacked) | {mount.pin: size for mount, size in mounts.items()}
    walker = Walker(Layout(store.root, store.temporary))  # one that pins nothing
    images = Needed()
    walker.reach((entry.digest for entry in Layout(store.root, store.temporary).index().manifests), images)
    forms = _forms(store)
    pinned = [_reach(walker, forms, digest) for digest in held(store.leases)]
    kept = [*_all_kept(store, walker, forms), *(_Kept({one.pin}, one.used, mounts=[one]) for one in mounts)]
    of_images, in_use = _parts(images), set().union(*map(_parts, pinned))
    owners = Counter(part for one in kept for part in one.parts)
    counted = (owners.keys() | in_use) - of_images
    used = sum(sizes.get(part, 0) for part in counted)
    unneeded = sum(size for part, size in sizes.items() if part not in counted | of_images)
    allowed = limit.kept(used, free_space(store.root) - SIZE + unneeded)  # the reserve will be there again
    going = {*candidates.holdings, *candidates.mounts}
    found = Removable([], [])
    for one in sorted(kept, key=lambda one: one.used):
        if used <= allowed:
            break
        parts = {part for part in one.parts - of_images - in_use if sizes.get(part)}
        if parts and going.issuperset((*one.holdings, *one.mounts)):
            found.holdings.extend(one.holdings)
            found.mounts.extend(one.mounts)
            owners.subtract(parts)
            used -= sum(sizes[part] for part in parts if not owners[part])
    return found


def _sizes(store: Store, unpacked: Iterable[tuple[str, int]]) -> dict[str, int]:
    """What all blobs and unpacked layers take, by their names as parts."""
    sizes = Counter(blob_sizes(Layout(store.root, store.temporary)))
    for diff_id, size in unpacked:
        sizes[_unpacked(diff_id)] += size
    return dict(sizes)


def _parts(needed: Needed) -> set[str]:
    """The names of what takes space: a blob's is its digest, an unpacked layer's none that a blob has."""
    return needed.blobs | {_unpacked(diff_id) for diff_id in needed.diff_ids}


def _unpacked(diff_id: str) -> str:
    return f"unpacked {diff_id}"


def _forms(store: Store) -> dict[str, list[str]]:
    """The blobs of each layer, by its diff ID."""
    forms: dict[str, list[str]] = {}
    for record in store.database.all_layers():
        forms.setdefault(record.diff_id, []).append(record.digest)
    return forms


def _reach(walker: Walker, forms: dict[str, list[str]], digest: str) -> Needed:
    """What a record or lease keeps that holds a diff ID or a blob's digest: as `collect.needed`."""
    found = Needed(diff_ids={digest})
    walker.reach((digest, *forms.get(digest, ())), found)
    return found


def _all_kept(store: Store, walker: Walker, forms: dict[str, list[str]]) -> list[_Kept]:
    holdings: dict[str, list[Holding]] = {}
    for holding in store.database.holdings():
        holdings.setdefault(holding.holds, []).append(holding)
    stood_on = _last_stood_on(store)
    kept = []
    for digest, those in holdings.items():
        found = _reach(walker, forms, digest)
        last = max(stood_on.get(name, 0.0) for name in found.blobs | found.diff_ids)
        kept.append(_Kept(_parts(found), max(last, *(holding.used for holding in those)), those))
    return kept


def _last_stood_on(store: Store) -> dict[str, float]:
    """When a step was last used that stands on a layer or copies from it, for each: a moment later than that step, so
    that it goes before what it needs. (In BuildKit, too, a layer stays as long as another stands on it.)"""
    steps = [
        (used, diff_id, set(map(bytes.decode, re.findall(rb"sha256:[0-9a-f]{64}", recipe))))
        for diff_id, used, recipe in store.database.step_recipes(_LARGEST_RECIPE)
    ]
    found: dict[str, float] = {}
    for used, diff_id, names in sorted(steps, key=lambda step: (step[0], len(step[2])), reverse=True):
        moment = max(used, found.get(diff_id, 0.0)) + _MOMENT
        for name in names - {diff_id}:
            found[name] = max(moment, found.get(name, 0.0))
    return found
