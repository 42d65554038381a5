"""EROFS images mounted from their files, without a block device, and nowhere in the file tree: a descriptor is all.

Linux mounts such a file itself since 6.12, where its configuration and the file's own file system allow that (memory
does not), and takes a mount that is nowhere as a layer of an overlay since 6.15.
"""

from __future__ import annotations

import ctypes
import os

from builder.filesystem.erofs_writer import ImageWriter

_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # the same numbers on every architecture
_CLOEXEC = 1
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_ATTRIBUTES = 0x1 | 0x2 | 0x4  # read-only, nosuid, nodev: nobody runs anything from this mount itself
_OLDEST = (6, 15)


def mount_image(path: str) -> int:
    """A descriptor of the root of an image. The image is mounted as long as it, or what was opened with it, is open.
    Raises OSError."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long

    def check(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
        return result

    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        context = check(call(_FSOPEN, b"erofs", _CLOEXEC))
        try:
            # By its descriptor: the kernel takes no more than 255 bytes.
            check(call(_FSCONFIG, context, _SET_STRING, b"source", f"/proc/self/fd/{file}".encode(), 0))
            check(call(_FSCONFIG, context, _SET_FLAG, b"ro", None, 0))
            check(call(_FSCONFIG, context, _CREATE, None, None, 0))
            return check(call(_FSMOUNT, context, _CLOEXEC, _ATTRIBUTES))
        finally:
            os.close(context)
    finally:
        os.close(file)


def is_able(directory: str) -> bool:
    """Whether this process can mount images that lie in a directory, as layers: tried with an empty one."""
    release = os.uname().release.split(".")
    if not (release[0].isdigit() and release[1].isdigit()) or (int(release[0]), int(release[1])) < _OLDEST:
        return False
    try:
        file = os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        ImageWriter(file).finish()
        os.close(mount_image(f"/proc/self/fd/{file}"))
    except OSError:
        return False
    finally:
        os.close(file)
    return True
