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
from collections.abc import Iterator
from contextlib import contextmanager

# linux/fs.h, as on x86-64 and 64-bit ARM; elsewhere they may be unknown, and nothing happens. The numbers speak of a
# long, the kernel reads and writes an int.
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_TOPDIR_FL = 0x00020000

_DRAWN = 3


def make_apart(path: str, mode: int) -> None:
    """Make a directory away from what was removed lately, where the file system can be told to. Its parent is the
    caller's alone. Raises OSError.

    A search that begins among groups in use ends at the first free one after them, like the search for whatever else
    was made, and perhaps removed, lately. Disks fill from the start: of a few drawn directories the last one on the
    disk is kept.
    """
    parent = os.path.dirname(path)
    with _spreading(parent) as able:
        drawn = [f"{parent}/{os.urandom(8).hex()}" for _ in range(_DRAWN if able else 1)]
        for directory in drawn:
            os.mkdir(directory, mode)
    drawn.sort(key=lambda directory: os.stat(directory).st_ino)
    kept = drawn.pop()
    for directory in drawn:
        os.rmdir(directory)
    os.chmod(kept, mode)  # whatever the umask
    os.rename(kept, path)


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
