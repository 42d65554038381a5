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
    other user sets all that is in the directory aside, since it belongs to processes that were killed. Raises OSError,
    also for a link: what it leads to is nobody's leftover.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    leftovers: list[str] = []
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftovers = [os.path.join(directory, name) for name in _set_aside(descriptor)]
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, leftovers


def _set_aside(directory: int) -> list[str]:
    """Give everything a name that nobody looks for: removing may take long, and others may come meanwhile. The
    directory is given by a descriptor, since its name may by now be that of another one."""
    leftovers = []
    for name in os.listdir(directory):
        if not name.startswith(_ASIDE):
            aside = f"{_ASIDE}{os.urandom(6).hex()}"
            try:
                os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=directory)
            except FileNotFoundError:  # notes for the next command are written without a share, and got their name
                continue
            name = aside
        leftovers.append(name)
    return leftovers
