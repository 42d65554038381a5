"""Lock files with one holder among threads and processes: flock(2), which the kernel takes away however a process ends,
so that no lock is ever stale."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator


@contextlib.contextmanager
def exclusive(path: str) -> Iterator[bool]:
    """Hold the lock file `path`. Yields whether it had to be waited for."""
    descriptor = _take(path, fcntl.LOCK_NB)
    waited = descriptor is None
    if descriptor is None:
        descriptor = _take(path, 0)
        assert descriptor is not None
    with _held(descriptor, path):
        yield waited


@contextlib.contextmanager
def exclusive_or_not(path: str) -> Iterator[bool]:
    """Hold the lock file `path` if nobody else does. Yields whether it is held."""
    descriptor = _take(path, fcntl.LOCK_NB)
    if descriptor is None:
        yield False
        return
    with _held(descriptor, path):
        yield True


@contextlib.contextmanager
def _held(descriptor: int, path: str) -> Iterator[None]:
    try:
        yield
    finally:
        try:
            os.unlink(path)
        finally:
            os.close(descriptor)


def _take(path: str, flags: int) -> int | None:
    """Lock the file and return its descriptor, or None if `flags` forbid to wait and somebody has it.

    The file goes away with its last holder; so whoever has locked it must look whether it still has its name.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
            if _has_name(descriptor, path):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _has_name(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
