"""How overlayfs keeps whiteouts and opaque directories in a layer's directory, for whoever reads or writes one.

A whiteout is a character device 0/0, which since Linux 5.8 anybody may create; an opaque directory has an attribute,
`trusted.overlay.opaque` for root and `user.overlay.opaque` inside a user namespace (mount option `userxattr`).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable

from builder.filesystem import kinds
from builder.filesystem.tree import FileInfo

OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
REDIRECT = ("trusted.overlay.redirect", "user.overlay.redirect")
OWN_PREFIXES = ("trusted.overlay.", "user.overlay.")
CAPABILITY = "security.capability"

_KINDS = {
    stat.S_IFREG: kinds.FILE, stat.S_IFDIR: kinds.DIRECTORY, stat.S_IFLNK: kinds.SYMLINK, stat.S_IFCHR: kinds.CHARACTER,
    stat.S_IFBLK: kinds.BLOCK, stat.S_IFIFO: kinds.FIFO, stat.S_IFSOCK: kinds.SOCKET,
}  # fmt: skip


def file_info(status: os.stat_result, link: str = "") -> FileInfo:
    """What a layer's directory says of a file; a whiteout device becomes a WHITEOUT."""
    mode = status.st_mode
    kind = _KINDS[stat.S_IFMT(mode)]
    device = (0, 0)
    links, identity = 1, None
    if kind == kinds.CHARACTER or kind == kinds.BLOCK:
        device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        if kind == kinds.CHARACTER and status.st_rdev == 0:
            kind = kinds.WHITEOUT
    if kind != kinds.DIRECTORY and status.st_nlink > 1:
        links, identity = status.st_nlink, (status.st_dev, status.st_ino)
    size = status.st_size if kind == kinds.FILE else 0
    return FileInfo(
        kind, mode & 0o7777, status.st_uid, status.st_gid, size, status.st_mtime_ns, link, device, links, identity,
        status.st_ino, status.st_ctime_ns,
    )  # fmt: skip


def attributes(file: str | int, *, follow: bool = False) -> list[str]:
    """The names of a file's extended attributes; none where the file system has none."""
    try:
        return os.listxattr(file) if isinstance(file, int) else os.listxattr(file, follow_symlinks=follow)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENODATA):
            return []
        raise


def is_opaque(file: str | int, names: Iterable[str]) -> bool:
    """Whether a directory hides what the layers below have in it; `names` are its attributes."""
    return any(name in OPAQUE and os.getxattr(file, name) == b"y" for name in names)
