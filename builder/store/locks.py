"""Locks of a store: one holder for a name, and a share in the store itself.

Both are flock(2) locks, which the kernel takes away however a process ends, so that none is ever stale.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

_ASIDE = "gone."


@contextlib.contextmanager
def exclusive(path: str) -> Iterator[bool]:
    """Hold the lock file `path`, among threads and processes. Yields whether it had to be waited for.

    The file goes away with its last holder; so after waiting one must look whether it still has its name.
    """
    waited = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = True
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not _has_name(descriptor, path):
                continue
            try:
                yield waited
            finally:
                os.unlink(path)
            return
        finally:
            os.close(descriptor)


def _has_name(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def take_share(directory: str) -> tuple[int, list[str]]:
    """Be one of the users of a store, whose directory for unfinished files this is.

    Returns a descriptor that stands for the share as long as it is open, and what can be removed: whoever finds no
    other user sets all that is in the directory aside, since it belongs to processes that were killed. Raises OSError.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    leftovers: list[str] = []
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftovers = _set_aside(directory)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, leftovers


def _set_aside(directory: str) -> list[str]:
    """Give everything a name that nobody looks for: removing may take long, and others may come meanwhile."""
    leftovers = []
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if not name.startswith(_ASIDE):
            aside = os.path.join(directory, f"{_ASIDE}{os.urandom(6).hex()}")
            os.rename(path, aside)
            path = aside
        leftovers.append(path)
    return leftovers
