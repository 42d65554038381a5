"""Leases: what running builds and transfers use, so that a collection leaves it alone.

Each process that works with the store holds a file in ROOT/leases, locked as long as it lives, with one line for each
digest (of a blob), diff ID or cache mount it relies on. A line is written *before* the process looks whether the blob
is there, in a moment in which no collection runs; so what was found stays. Collections run while builds do: they take
what no lease names. A killed process loses its lock, and the next collection removes its file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from builder.errors import StoreError, store_error
from builder.filesystem.locks import Wait

_GATE = "gate"


class Lease:
    """The lease of one process. Threads may share it."""

    def __init__(self, directory: str) -> None:
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            self._gate = _open_gate(directory)
        except OSError as error:
            raise _error("cannot make a lease", error, directory) from error
        self._mutex = threading.Lock()
        self._pinned: set[str] = set()
        self._size = 0
        self._path = os.path.join(directory, f"{os.getpid()}.{os.urandom(6).hex()}")
        with self._no_collection():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            try:
                self._file = os.open(self._path, flags, 0o644)
                _let_read(self._file)
            except OSError as error:
                raise _error("cannot make a lease", error, directory) from error
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def pin(self, digest: str) -> None:
        """Keep a blob or layer until the lease ends, whether it is there yet or not. Raises StoreError."""
        if digest in self._pinned:
            return
        with self._mutex, self._no_collection():
            try:
                self._note(f"{digest}\n".encode())
            except OSError as error:
                raise store_error("what is in use cannot be noted", error, self._path) from error
            self._pinned.add(digest)

    def _note(self, line: bytes) -> None:
        """Add a line, or nothing: a disk that gets full may take the beginning of one. Raises OSError."""
        if os.write(self._file, line) != len(line):
            os.ftruncate(self._file, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += len(line)

    def release(self) -> None:
        """End the lease."""
        with self._mutex:
            os.unlink(self._path)
            os.close(self._file)
            os.close(self._gate)

    @contextmanager
    def _no_collection(self) -> Iterator[None]:
        fcntl.flock(self._gate, fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.flock(self._gate, fcntl.LOCK_UN)


@contextmanager
def frozen(directory: str, wait: Wait | None = None) -> Iterator[frozenset[str]]:
    """What living leases hold, while no process can pin anything: keep it short. Removes those of dead processes.
    `wait` is called between looks while another collection is at work. Raises StoreError."""
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        gate = _open_gate(directory)
    except OSError as error:
        raise _error("cannot look at what is in use", error, directory) from error
    try:
        while wait is not None and not _is_free(gate, fcntl.LOCK_EX):
            wait()
        fcntl.flock(gate, fcntl.LOCK_EX)
        yield _read(directory, clean=True)
    finally:
        os.close(gate)


def held(directory: str) -> frozenset[str]:
    """What living leases hold at this moment, to tell people why something is kept. Raises StoreError."""
    return _read(directory, clean=False) if os.path.isdir(directory) else frozenset()


def _open_gate(directory: str) -> int:
    path = os.path.join(directory, _GATE)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except PermissionError:  # root made it; to lock it, reading is enough
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    _let_read(descriptor)
    return descriptor


def _let_read(descriptor: int) -> None:
    """Have our file read by whoever the store belongs to, although it is root's and whatever the umask was when it was
    made. Raises OSError."""
    found = os.fstat(descriptor)
    if found.st_uid == os.geteuid() and found.st_mode & 0o777 != 0o644:
        os.fchmod(descriptor, 0o644)


def _read(directory: str, *, clean: bool) -> frozenset[str]:
    pins: set[str] = set()
    try:
        names = os.listdir(directory)
    except OSError as error:
        raise _error("cannot look at what is in use", error, directory) from error
    for name in names:
        path = os.path.join(directory, name)
        if name == _GATE:
            continue
        try:
            with open(path, encoding="ascii") as file:
                if not _is_free(file.fileno()):
                    pins.update(line for line in file.read().split("\n") if line)
                elif clean:
                    os.unlink(path)
        except FileNotFoundError:
            continue  # it ended meanwhile
        except OSError as error:
            raise _error("a lease cannot be read", error, path) from error
    return frozenset(pins)


def _error(what: str, error: OSError, place: str) -> StoreError:
    """As `store_error`; what another user left in the store does not go away by itself."""
    if isinstance(error, PermissionError):
        remedy = "give it to the store's owner (chown -R), or remove it when nobody builds here"
        return StoreError(f"{what}: {error.strerror}", place=place, remedy=remedy)
    return store_error(what, error, place)


def _is_free(descriptor: int, how: int = fcntl.LOCK_SH) -> bool:
    """Whether nobody holds the lock of a file, which now we do."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
