"""Large files into an archive: room is made for all of a file at once, and its two halves are copied beside each other.

The kernel writes one piece at a time to a file, but reads meanwhile. `copy_file_range` and `sendfile` take longer than
reading and writing by pieces, of which finding room for each is a quarter.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable
from typing import BinaryIO

Append = Callable[[int, int], int]
"""Appends so many bytes from the start of a descriptor's file, and returns how many it had."""

LARGE = 8 << 20
"""Bytes from which on it is worth a thread."""
_PIECE = 1 << 20
_NO_ROOM_BEFOREHAND = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)


def appender(target: BinaryIO) -> Append | None:
    """What appends to a file that is written in order; None for what is no regular file, or appends all by itself."""
    try:
        descriptor = target.fileno()
        is_regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        if not is_regular or fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND:
            return None
    except OSError:  # there is no descriptor
        return None
    return lambda source, size: _append(target, source, size)


def _append(target: BinaryIO, source: int, size: int) -> int:
    """Raises OSError, of a full disk before anything is written."""
    target.flush()
    begin = target.tell()
    descriptor = target.fileno()
    try:
        os.posix_fallocate(descriptor, begin, size)
    except OSError as error:
        if error.errno not in _NO_ROOM_BEFOREHAND:
            raise
    middle = size // 2
    first, second = _Part(source, descriptor, 0, middle, begin), _Part(source, descriptor, middle, size, begin)
    thread = threading.Thread(target=second.copy)
    thread.start()
    try:
        first.copy()
    finally:
        thread.join()  # before anybody closes what it writes to
    for part in (first, second):
        if part.error is not None:
            raise part.error
    target.seek(begin + size)
    return first.copied + second.copied


class _Part:
    """Bytes `start` to `end` of the descriptor `source`, to be written to the descriptor `target` from `begin` on."""

    def __init__(self, source: int, target: int, start: int, end: int, begin: int) -> None:
        self._source, self._target = source, target
        self._start, self._end, self._begin = start, end, begin
        self.copied = 0
        self.error: OSError | None = None

    def copy(self) -> None:
        try:
            self._copy()
        except OSError as error:
            self.error = error

    def _copy(self) -> None:
        piece = memoryview(bytearray(min(_PIECE, self._end - self._start)))
        while (at := self._start + self.copied) < self._end:
            found = os.preadv(self._source, [piece[: self._end - at]], at)
            if not found:
                return
            written = 0
            while written < found:
                written += os.pwrite(self._target, piece[written:found], self._begin + at + written)
            self.copied += found
