"""Removing what is not used: images, the records of the step cache with the layers that they keep, and cache mounts."""

from __future__ import annotations

import time

import msgspec

from builder.oci.layout import Layout
from builder.store.cached import Choice, cache_records, is_kept
from builder.store.collect import Walker, needed, sweep
from builder.store.describe import Summary
from builder.store.failed import Cleared, FailedStates
from builder.store.images import StoredImage
from builder.store.leases import held
from builder.store.limit import Limit, Removable, surplus
from builder.store.mounts import remove_unused, unused_mounts
from builder.store.records import Holding
from builder.store.remove import Removal, in_use, remove_entirely
from builder.store.room import room_to_remove
from builder.store.store import Store

_UNUSED = 30 * 86400.0
"""Seconds after which derived data is taken for worth nothing: for each file that changed some stays."""


class Pruned(msgspec.Struct, frozen=True):
    """What was pruned. `steps` counts the records of the build cache, `mounts` cache mounts, `failed` the steps that
    were kept for `debug`; `size` is how many bytes became free."""

    images: tuple[Removal, ...]
    steps: int
    mounts: int
    failed: int
    size: int


def prune(
    store: Store,
    images: list[Summary],
    *,
    cache: str = "",
    before: float | None = None,
    limit: Limit | None = None,
    choice: Choice | None = None,
) -> Pruned:
    """Remove these images with all of their names, and build cache: '' none, `unused` what no image that remains has,
    `all`. With either go cache mounts, as in BuildKit, where a prune without `all` takes them too, and the failed steps
    that are kept. Of all that only what was last used (or kept) `before`, in seconds since the epoch, goes, and of the
    cache's records and mounts only as many as a `limit` asks. What running builds use stays, and so does a failed step
    that somebody looks at. With build cache goes what was derived and is not used, for a month if nothing else is said:
    it is not counted. With a `choice` only the records and mounts that it takes go, and nothing but these.

    Raises StoreError.
    """
    with room_to_remove(store):
        return _prune(store, images, cache, before, limit, choice)


def _prune(
    store: Store,
    images: list[Summary],
    cache: str,
    before: float | None,
    limit: Limit | None,
    choice: Choice | None,
) -> Pruned:
    removals = []
    for digest in dict.fromkeys(row.descriptor.digest for row in images):
        descriptor = next(row.descriptor for row in images if row.descriptor.digest == digest)
        if not in_use(store, descriptor):
            removals.append(remove_entirely(store, StoredImage(None, descriptor)))
    doomed = Removable([], [])
    failed = Cleared(0, 0)
    if cache:
        if choice is None:
            failed = FailedStates(store.root, store.temporary).clear(before)
        doomed = prunable(store, everything=cache == "all", before=before)
        if choice is not None:
            doomed = _chosen(store, doomed, choice)
        if limit is not None:
            doomed = surplus(store, limit, doomed)
    collected = sweep(store, doomed.holdings)
    mounts = remove_unused(store, doomed.mounts)
    if cache:
        if choice is not None:
            store.database.forget(doomed.holdings)
        else:
            if cache == "all" and before is None and limit is None and not held(store.leases):
                store.database.clear()
            forget(store, doomed.holdings, before)
        store.settle_snapshots()  # who keeps house has the time
    size = failed.size + collected.size + sum(size for _, size in mounts)
    return Pruned(tuple(removals), len(doomed.holdings), len(mounts), failed.count, size)


def forget(store: Store, doomed: list[Holding], before: float | None = None) -> None:
    """Forget records whose layers were removed, and what was derived and was last used `before`: a month ago, if that
    is not said. It comes last, because the database grows by it for a while: a step whose layer is gone does no harm,
    it runs again."""
    store.database.forget(doomed)
    store.database.forget_unused_memos(before if before is not None else time.time() - _UNUSED)
    store.database.forget_recipes(store.builds.keys())


def prunable(store: Store, *, everything: bool, before: float | None = None) -> Removable:
    """What of the build cache may go: the records whose layer or blob no image has, or all, and the cache mounts. What
    running builds use may not."""
    pins = held(store.leases)
    kept = needed(store, (), pins)
    walker = Walker(Layout(store.root, store.temporary))
    holdings = [
        holding
        for holding in store.database.holdings()
        if holding.holds not in pins
        and (before is None or holding.used < before)
        and (everything or not is_kept(walker, holding, kept.blobs | kept.diff_ids))
    ]
    return Removable(holdings, [mount for mount in unused_mounts(store) if before is None or mount.used < before])


def _chosen(store: Store, candidates: Removable, choice: Choice) -> Removable:
    taken = {record.item for record in cache_records(store) if choice(record)}
    return Removable(
        [holding for holding in candidates.holdings if holding in taken],
        [mount for mount in candidates.mounts if mount in taken],
    )
