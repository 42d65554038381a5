"""Keeping the build cache within a policy: what a build does at its end, beside others, that wrote layers.

It runs under that build's lease, so that nothing goes that the build made or found. It waits for nobody for long: then
the next build does it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from builder.filesystem.locks import exclusive_or_not
from builder.oci.layout import Layout
from builder.store.collect import sweep, tree_size
from builder.store.limit import Limit, surplus
from builder.store.mounts import StoredMount, is_in_use, is_unchanged, remove_unused, stored_mounts
from builder.store.prune import forget, prunable
from builder.store.room import free_space, room_to_remove
from builder.store.store import Store
from builder.store.usage import blob_sizes, unpacked_layers

_SIZE = "unpacked-size-1"
_MOUNT_SIZE = "mount-size-1"
_PATIENCE, _PAUSE = 1.0, 0.01  # seconds


class _Busy(Exception):
    """Others are at work for so long that there is no waiting for them."""


def trim(store: Store, limit: Limit, before: float | None) -> int:
    """Remove the least recently used build cache that no image has, and cache mounts, as far as a limit asks (all of
    it, if that says nothing), of that what was last used `before`. How many records and mounts went. Raises StoreError,
    OSError."""
    with exclusive_or_not(os.path.join(store.temporary, "trim.lock")) as alone:
        try:
            return _trim(store, limit, before) if alone else 0
        except _Busy:
            return 0


def _trim(store: Store, limit: Limit, before: float | None) -> int:
    times = [one.used for one in stored_mounts(store)] + [one.used for one in store.database.holdings()]
    if before is not None and all(used >= before for used in times):
        return 0
    unpacked, mounts, free = _unpacked(store), _mounts(store), free_space(store.root)
    if limit != Limit():
        total = sum(blob_sizes(Layout(store.root, store.temporary)).values()) + sum(size for _, size in unpacked)
        total += sum(mounts.values())
        if total <= limit.kept(total, free) and free >= limit.min_free:
            return 0  # even with all that images have
    doomed = prunable(store, everything=False, before=before)
    if limit != Limit():
        doomed = surplus(store, limit, doomed, unpacked, mounts)
    gone = 0
    if doomed.holdings or doomed.mounts or free < limit.min_free:  # what nobody needs may be all that is missing
        with room_to_remove(store):
            sweep(store, doomed.holdings, _waiting())
            gone = len(remove_unused(store, doomed.mounts))
            forget(store, doomed.holdings)
    return gone + len(doomed.holdings)


def _unpacked(store: Store) -> list[tuple[str, int]]:
    """The unpacked layers' sizes, each of which is found out once: that may mean looking at very many files."""
    known = store.database.memos(_SIZE)
    found = []
    for diff_id, path in unpacked_layers(store):
        try:
            key = f"{path.removeprefix(store.root)} {os.stat(path).st_ino}"
        except FileNotFoundError:
            continue
        if key not in known:
            known[key] = str(tree_size(path)).encode()
            store.database.add_memo(_SIZE, key, known[key])
        found.append((diff_id, int(known[key])))
    return found


def _mounts(store: Store) -> dict[StoredMount, int]:
    """The cache mounts' sizes, each of which is found out once after a use: they may have very many files, too. One
    that a step has just now counts with what it had."""
    known = store.database.memos(_MOUNT_SIZE)
    found = {}
    for mount in stored_mounts(store):
        used, _, size = known.get(mount.name, b"").decode().partition(" ")
        if not size or (used != repr(mount.used) and not is_in_use(mount)):
            size = str(tree_size(mount.path))
            if is_unchanged(mount):
                store.database.add_memo(_MOUNT_SIZE, mount.name, f"{mount.used!r} {size}".encode())
        found[mount] = int(size)
    return found


def _waiting() -> Callable[[], None]:
    """What waits between two looks whether others are done, for a while."""
    end = time.monotonic() + _PATIENCE

    def wait() -> None:
        if time.monotonic() > end:
            raise _Busy
        time.sleep(_PAUSE)

    return wait
