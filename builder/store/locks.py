"""The share that each process has in the store that it uses: a flock(2) lock, which the kernel takes away however the
process ends."""

from __future__ import annotations

import contextlib
import fcntl
import os

_ASIDE = "gone."


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
            try:
                os.rename(path, aside)
            except FileNotFoundError:  # notes for the next command are written without a share, and got their name
                continue
            path = aside
        leftovers.append(path)
    return leftovers
