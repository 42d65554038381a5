"""Where on the disk a tree's inodes lie.

ext4 puts a new directory near its parent, and files into their directory's block group, so that one layer after another
lands where the last was removed. That is slow where ext4 has no journal, as on the disks of many virtual machines:
there it keeps from using an inode again for a minute or more, and looks at each such inode of the group for each file
that it creates. A directory with the attribute T (chattr(1)) has its subdirectories spread over the disk instead: each
goes to a group with few directories, and the search begins at one that its name hashes to.

What a place is like is known of its next inodes alone. A tree that we make ourselves therefore goes on elsewhere when
the place where it was begun becomes slow: an inode keeps its place when it is moved.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

# linux/fs.h, as on x86-64 and 64-bit ARM; elsewhere they may be unknown, and nothing happens. The numbers speak of a
# long, the kernel reads and writes an int.
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_TOPDIR_FL = 0x00020000

_DRAWN = 8
_QUICK = 40e-6
"""Seconds for making a file where nothing was removed lately: 5 to 10 µs. It is about 60 ns more for each inode that
was."""
_SLOW = 100e-6
_ENOUGH = 4
"""Seconds for making one thing, and how often in a row, until a tree is continued in another place."""
_NAME = "new"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_Made = TypeVar("_Made")


def make_apart(path: str, mode: int) -> bool:
    """Make a directory away from what was removed lately, where the file system can be told to. Its parent is the
    caller's alone. Whether that was found: False where the file system has no such places, too. Raises OSError.

    The group that has the fewest directories may well be one that has just been emptied. So a file is made in each
    directory that is drawn, until that is quick; else the best of them is kept.
    """
    parent = os.path.dirname(path)
    drawn: list[tuple[float, str]] = []
    try:
        with _spreading(parent) as able:
            while len(drawn) < _DRAWN:
                directory = f"{parent}/{os.urandom(8).hex()}"
                os.mkdir(directory, mode)
                drawn.append((_seconds_for_a_file(directory) if able else 0, directory))
                if drawn[-1][0] < _QUICK:
                    break
        kept = min(drawn)
        os.chmod(kept[1], mode)  # whatever the umask
        os.rename(kept[1], path)
        drawn.remove(kept)
        return able and kept[0] < _QUICK
    finally:
        for _, directory in drawn:
            with suppress(OSError):
                os.rmdir(directory)


class Placement:
    """Makes what a tree consists of: where it belongs, while that is quick, else in a place on the disk that is drawn
    anew, from where it is moved. `beside` is a directory on the tree's file system, the caller's alone, or "" for a
    tree that is to stay where it is."""

    def __init__(self, beside: str) -> None:
        self._beside = beside
        self._places: list[str] = []
        self._place = -1
        self._slow = 0
        self._enough = _ENOUGH

    def close(self) -> None:
        """Remove the places, in which nothing is left."""
        self._leave()
        for path in self._places:
            with suppress(OSError):
                os.rmdir(path)

    def mkdir(self, name: str, mode: int, parent: int) -> None:
        """Make a directory in the one that `parent` is a descriptor of. Raises OSError, as the others do."""
        self._make(name, parent, lambda name, where: os.mkdir(name, mode, dir_fd=where))

    def symlink(self, target: str, name: str, parent: int) -> None:
        self._make(name, parent, lambda name, where: os.symlink(target, name, dir_fd=where))

    def create(self, name: str, parent: int) -> int:
        """Make an ordinary file, and open it for writing."""
        return self._make(name, parent, lambda name, where: os.open(name, _CREATE, 0o600, dir_fd=where))

    def _make(self, name: str, parent: int, make: Callable[[str, int], _Made]) -> _Made:
        began = time.perf_counter()
        if self._place < 0:
            made = make(name, parent)
        else:
            if _exists(name, parent):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
            made = make(_NAME, self._place)
            os.rename(_NAME, name, src_dir_fd=self._place, dst_dir_fd=parent)
        if time.perf_counter() - began < _SLOW:
            self._slow = 0
        else:
            self._slow += 1
            if self._slow >= self._enough and self._beside:
                self._move()
        return made

    def _move(self) -> None:
        """Go to another place, if there is a better one. If there is none, or it is slow soon, so may be all others:
        the next time is waited for longer."""
        self._slow = 0
        self._enough *= 2
        path = f"{self._beside}/{os.urandom(8).hex()}"
        with suppress(OSError):  # then all goes on where it is
            is_quick = make_apart(path, 0o700)
            self._places.append(path)
            if is_quick:
                place = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._leave()
                self._place = place

    def _leave(self) -> None:
        if self._place >= 0:
            os.close(self._place)
            self._place = -1


def _exists(name: str, parent: int) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _seconds_for_a_file(directory: str) -> float:
    """How long it takes to make a file in a directory, when the kernel has read what it needs for that."""
    seconds = 0.0
    try:
        for _ in range(2):
            began = time.perf_counter()
            descriptor = os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            seconds = time.perf_counter() - began
            os.close(descriptor)
    except OSError:  # a file system without nameless files
        return 0
    return seconds


@contextmanager
def _spreading(directory: str) -> Iterator[bool]:
    """Give a directory the attribute T within the block, not for longer: what else is made in it should lie near it,
    where less is to be looked for. Whether the file system knows it: it is a hint, errors mean nothing."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        before = _change_flags(descriptor, _FS_TOPDIR_FL, 0)
        try:
            yield before is not None
        finally:
            if before is not None and not before & _FS_TOPDIR_FL:
                _change_flags(descriptor, 0, _FS_TOPDIR_FL)
    finally:
        os.close(descriptor)


def _change_flags(descriptor: int, added: int, removed: int) -> int | None:
    """Change a directory's attributes. What they were; None where that cannot be done."""
    try:
        flags = int.from_bytes(fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(4)), sys.byteorder)
        fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, (flags & ~removed | added).to_bytes(4, sys.byteorder))
    except OSError:
        return None
    return flags
