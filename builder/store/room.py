"""Room for removing things when the disk is full.

Even that takes some: `index.json` is written anew before the old one goes, SQLite needs memory to share in a file.
So ROOT/reserve holds room and nothing else. What removes things lets it go first and takes it again from what became
free. A process that is killed meanwhile leaves a store without a reserve, which the next one makes; where there is none
the disk is relieved of unpacked layers instead, which are a cache.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from builder.errors import NO_ROOM, StoreError, lacks_room
from builder.store.leases import frozen

if TYPE_CHECKING:
    from builder.store.store import Store

RESERVE = "reserve"
SIZE = 512 << 10
"""The bytes of the reserve. An index with a thousand names takes as many."""
_PLENTY = 8 * SIZE  # bytes that are free when a reserve is made, unless there was one
_LITTLE = 64 << 10  # with fewer bytes SQLite and the index's successor do not both find room


def is_full(directory: str) -> bool:
    """Whether so little is free on the disk of a directory that the store cannot work there."""
    try:
        return free_space(directory) < _LITTLE
    except OSError:
        return False


def keep_room(root: str, *, again: bool = False) -> None:
    """Make the reserve of the store below `root`, unless it is there or there is not much room; with `again` of
    whatever can be had. What cannot be done is left to the next process."""
    path = os.path.join(root, RESERVE)
    with contextlib.suppress(OSError):
        if os.path.exists(path) and os.stat(path).st_size >= SIZE:
            return
        if again or free_space(root) >= _PLENTY:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                _allocate(descriptor)
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def room(root: str) -> Iterator[bool]:
    """Have the reserve's room for what is done in the block. Yields whether there was a reserve."""
    path = os.path.join(root, RESERVE)
    there = False
    with contextlib.suppress(OSError):
        there = os.stat(path).st_size > 0
        os.unlink(path)
    try:
        yield there
    finally:
        if there:
            keep_room(root, again=True)


@contextlib.contextmanager
def room_to_remove(store: Store) -> Iterator[None]:
    """Have room for removing what is in a store. Not to be nested. Raises StoreError when there is none at all."""
    with room(store.root) as there:
        if not there and is_full(store.root):
            _drop_snapshots(store)
        try:
            yield
        except StoreError as error:
            if not lacks_room(error):
                raise
            remedy = "remove something else from this disk, or the logs of builds: builder builds rm --all"
            raise StoreError(error.cause, place=error.place, remedy=remedy) from error


def _drop_snapshots(store: Store) -> None:
    """Remove the unpacked layers that no running build uses."""
    from builder.filesystem.syscalls import remove_tree

    with contextlib.suppress(OSError):
        with frozen(store.leases) as pins:
            aside = store.set_snapshots_aside(pins)
        for path in aside:
            remove_tree(path)


def _allocate(descriptor: int) -> None:
    """Give a file as much room as there is, up to the size of a reserve. Raises OSError."""
    size = SIZE
    while size >= _LITTLE:
        try:
            os.posix_fallocate(descriptor, 0, size)
            return
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            os.ftruncate(descriptor, 0)
            size -= _LITTLE


def free_space(directory: str) -> int:
    """The bytes that can be written to the disk of a directory. Raises OSError."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize
