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
from builder.store.prune import forget, prunable
from builder.store.room import free_space, room_to_remove
from builder.store.store import Store
from builder.store.usage import blob_sizes, unpacked_layers

_SIZE = "unpacked-size-1"
_PATIENCE, _PAUSE = 1.0, 0.01  # seconds


class _Busy(Exception):
    """Others are at work for so long that there is no waiting for them."""


def trim(store: Store, limit: Limit, before: float | None) -> int:
    """Remove the least recently used build cache that no image has, as far as a limit asks (all of it, if that says
    nothing), of that what was last used `before`. How many records went. Raises StoreError, OSError."""
    with exclusive_or_not(os.path.join(store.temporary, "trim.lock")) as alone:
        try:
            return _trim(store, limit, before) if alone else 0
        except _Busy:
            return 0


def _trim(store: Store, limit: Limit, before: float | None) -> int:
    if before is not None and all(holding.used >= before for holding in store.database.holdings()):
        return 0
    unpacked, free = _unpacked(store), free_space(store.root)
    if limit != Limit():
        total = sum(blob_sizes(Layout(store.root, store.temporary)).values()) + sum(size for _, size in unpacked)
        if total <= limit.kept(total, free) and free >= limit.min_free:
            return 0  # even with all that images have
    doomed = prunable(store, everything=False, before=before)
    if limit != Limit():
        doomed = surplus(store, limit, doomed, unpacked)
    if doomed or free < limit.min_free:  # what nobody needs may be all that is missing
        with room_to_remove(store):
            sweep(store, doomed, _waiting())
            forget(store, doomed)
    return len(doomed)


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


def _waiting() -> Callable[[], None]:
    """What waits between two looks whether others are done, for a while."""
    end = time.monotonic() + _PATIENCE

    def wait() -> None:
        if time.monotonic() > end:
            raise _Busy
        time.sleep(_PAUSE)

    return wait
