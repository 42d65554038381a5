"""How overlayfs keeps whiteouts and opaque directories in a layer's directory, for whoever reads or writes one.

A whiteout is a character device 0/0, which since Linux 5.8 anybody may create; an opaque directory has an attribute,
`trusted.overlay.opaque` for root and `user.overlay.opaque` inside a user namespace (mount option `userxattr`). Where
one is the kernel's mark the other is an attribute like any, which a command may set: rootless podman's storage in an
image is full of them.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from functools import cache

from builder.filesystem import kinds
from builder.filesystem.tree import FileInfo

OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
OWN_PREFIXES = ("trusted.overlay.", "user.overlay.")
"""Of attributes that no layer may bring along: elsewhere they are the kernel's marks. The second of each pair is that
of processes which `trusted.` attributes are out of reach of."""
CAPABILITY = "security.capability"
_REDIRECT = ("trusted.overlay.redirect", "user.overlay.redirect")
_MACHINE = frozenset({"security.selinux", "system.nfs4_acl"})
"""What a machine gives each file that is made on it, wherever it came from: no part of an image, as for umoci."""
_SYS_ADMIN = 21  # the number of the capability, capabilities(7)
_INITIAL = 0xEFFFFFFD  # the initial user namespace's inode: Linux, include/linux/proc_ns.h, PROC_USER_INIT_INO

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
    """The names of a file's extended attributes but those of this machine; none where the file system has none."""
    try:
        names = os.listxattr(file) if isinstance(file, int) else os.listxattr(file, follow_symlinks=follow)
        return [name for name in names if name not in _MACHINE] if names else names
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENODATA):
            return []
        raise


@cache
def is_privileged() -> bool:
    """Whether `trusted.` attributes are within reach of this process: with CAP_SYS_ADMIN, and in no user namespace."""
    with open("/proc/self/status") as status:
        effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    return bool(effective >> _SYS_ADMIN & 1) and os.stat("/proc/self/ns/user").st_ino == _INITIAL


def own_prefix() -> str:
    """How the names of the marks begin that overlayfs makes for this process, and understands."""
    return OWN_PREFIXES[not is_privileged()]


def is_opaque(file: str | int, names: Iterable[str]) -> bool:
    """Whether a directory hides what the layers below have in it; `names` are its attributes."""
    return any(name in OPAQUE and name.startswith(own_prefix()) and os.getxattr(file, name) == b"y" for name in names)


def is_renamed(names: Iterable[str]) -> bool:
    """Whether a directory with these attributes is one that overlayfs moved, and says from where."""
    return any(name in _REDIRECT and name.startswith(own_prefix()) for name in names)
