"""Where on the disk a tree's inodes lie.

ext4 puts a new directory near its parent, and files into their directory's block group, so that one layer after another
lands where the last was removed. That is slow where ext4 has no journal, as on the disks of many virtual machines:
there it keeps from using an inode again for a minute or more, and looks at each such inode of the group for each file
that it creates. A directory with the attribute T (chattr(1)) has its subdirectories spread over the disk instead: each
goes to a group with few directories, and the search begins at one that its name hashes to.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# linux/fs.h, as on x86-64 and 64-bit ARM; elsewhere they may be unknown, and nothing happens. The numbers speak of a
# long, the kernel reads and writes an int.
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_TOPDIR_FL = 0x00020000

_DRAWN = 8
_QUICK = 40e-6
"""Seconds for making a file where nothing was removed lately: 5 to 10 µs. It is about 60 ns more for each inode that
was."""


def make_apart(path: str, mode: int) -> None:
    """Make a directory away from what was removed lately, where the file system can be told to. Its parent is the
    caller's alone. Raises OSError.

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
    finally:
        for _, directory in drawn:
            with suppress(OSError):
                os.rmdir(directory)


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
