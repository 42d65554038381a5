"""EROFS images mounted from their files, without a block device, and nowhere in the file tree: a descriptor is all.

Linux mounts such a file itself since 6.12, where its configuration and the file's own file system allow that (memory
does not), and takes a mount that is nowhere as a layer of an overlay since 6.15.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from builder.filesystem.erofs_writer import ErofsWriter

_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # the same numbers on every architecture
_CLOEXEC = 1
_SET_STRING, _CREATE = 1, 6
_ATTRIBUTES = 0x1 | 0x2 | 0x4  # read-only, nosuid, nodev: nobody runs anything from this mount itself


def mount_erofs(path: str) -> int:
    """A descriptor of the root of an image. The image is mounted as long as it, or what was opened with it, is open.
    Raises OSError."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # By its descriptor: the kernel takes no more than 255 bytes.
        with _filesystem(b"erofs", source=f"/proc/self/fd/{file}") as context:
            return _call(_FSMOUNT, context, _CLOEXEC, _ATTRIBUTES)
    finally:
        os.close(file)


def is_able(directory: str) -> bool:
    """Whether this process can mount images that lie in a directory, as layers: tried with an empty one."""
    opened = []
    try:
        opened.append(os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600))
        opened.append(os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        ErofsWriter(opened[0]).finish()
        opened.append(mount_erofs(f"/proc/self/fd/{opened[0]}"))
        lowers = ":".join(f"/proc/self/fd/{descriptor}" for descriptor in opened[1:])
        with _filesystem(b"overlay", lowerdir=lowers):
            return True
    except OSError:
        return False
    finally:
        for descriptor in opened:
            os.close(descriptor)


@contextmanager
def _filesystem(kind: bytes, **options: str) -> Iterator[int]:
    """A file system that is not mounted yet: fsopen(2), fsconfig(2)."""
    context = _call(_FSOPEN, kind, _CLOEXEC)
    try:
        for name, value in options.items():
            _call(_FSCONFIG, context, _SET_STRING, name.encode(), value.encode(), 0)
        _call(_FSCONFIG, context, _CREATE, None, None, 0)
        yield context
    finally:
        os.close(context)


def _call(number: int, *arguments: object) -> int:
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    result: int = syscall(number, *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
