"""Locks with one holder among threads and processes, which the kernel takes away however a process ends, so that none
is ever stale: lock files, flock(2), and many locks in one file, the open file description locks of fcntl(2)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator

import xxhash

Wait = Callable[[], None]
"""Called between two looks whether a lock has become free; what it raises ends the waiting. Without one the kernel
waits, which ends no sooner."""

_OPENED = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_FLOCK = "hhqqi4x"  # struct flock: type, whence, start, length, process


class LockTable:
    """Any number of locks in the file `path`, which stays: a lock of a name is one on a byte far beyond its end.

    Making and removing a lock file for each of many short uses is what takes the time: ext4 without a journal gives out
    no inode that was deleted lately (for a minute and more), and looks at each such for every new one.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    @contextlib.contextmanager
    def exclusive(self, name: str, wait: Wait | None = None) -> Iterator[bool]:
        """Hold the lock of a name. Yields whether it had to be waited for."""
        with self._opened() as descriptor:
            waited, how = False, fcntl.F_OFD_SETLK
            while not _lock(descriptor, name, how, fcntl.F_WRLCK):
                waited = True
                if wait is not None:
                    wait()
                else:
                    how = fcntl.F_OFD_SETLKW
            with _locked(descriptor, name):
                yield waited

    @contextlib.contextmanager
    def exclusive_or_not(self, name: str) -> Iterator[bool]:
        """Hold the lock of a name if nobody else does. Yields whether it is held."""
        with self._opened() as descriptor:
            if not _lock(descriptor, name, fcntl.F_OFD_SETLK, fcntl.F_WRLCK):
                yield False
                return
            with _locked(descriptor, name):
                yield True

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """The file, opened once more: its descriptions exclude each other, not processes."""
        descriptor = os.open(self._path, _OPENED, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _locked(descriptor: int, name: str) -> Iterator[None]:
    try:
        yield
    finally:  # closing would not do while a child that was forked meanwhile has the descriptor
        _lock(descriptor, name, fcntl.F_OFD_SETLK, fcntl.F_UNLCK)


def _lock(descriptor: int, name: str, command: int, kind: int) -> bool:
    """Change the lock of a name. Whether that was done: not if it is another's, and `command` does not wait."""
    import struct  # not all commands lock

    place = xxhash.xxh3_64_intdigest(name.encode()) >> 2  # an offset is below 2^63
    try:
        fcntl.fcntl(descriptor, command, struct.pack(_FLOCK, kind, os.SEEK_SET, place, 1, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


@contextlib.contextmanager
def exclusive(path: str, wait: Wait | None = None) -> Iterator[bool]:
    """Hold the lock file `path`. Yields whether it had to be waited for."""
    waited, how = False, fcntl.LOCK_NB
    while (descriptor := _take(path, how)) is None:
        waited = True
        if wait is not None:
            wait()
        else:
            how = 0
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
        descriptor = os.open(path, _OPENED, 0o600)
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
