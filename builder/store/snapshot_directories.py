"""Which processes use which unpacked layers.

Overlayfs's marks are others inside a user namespace than outside, so are the owners of files in each such namespace,
and a process in a container without CAP_SYS_ADMIN can make no marks at all: what one kind of process unpacks means
something else to another, which would not even see it. So each kind has a directory of its own.
"""

from __future__ import annotations

import os

import xxhash

from builder.filesystem.overlay_format import is_privileged
from builder.filesystem.snapshots import Snapshots

PRIVILEGED = "snapshots"
"""The directory of privileged processes: with CAP_SYS_ADMIN, and in no user namespace."""
_UNPRIVILEGED = "snapshots-unprivileged"
_ALL = "0 0 4294967295"


def own_snapshots(root: str) -> Snapshots:
    """Those of this process, in the store at `root`."""
    if is_privileged():
        return Snapshots(root, name=PRIVILEGED, erofs=True)
    maps = [_read(f"/proc/self/{name}_map") for name in ("uid", "gid")]
    if maps[0] == _ALL:
        return Snapshots(root, name=_UNPRIVILEGED, userxattr=True)
    return Snapshots(root, name=f"snapshots-user-{xxhash.xxh3_64_hexdigest(repr(maps).encode())}", userxattr=True)


def snapshot_names(root: str) -> list[str]:
    """The names below `root` of all such directories, of whatever processes."""
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return []
    return [name for name in names if name == PRIVILEGED or name.startswith(f"{PRIVILEGED}-")]


def _read(path: str) -> str:
    with open(path) as file:
        return " ".join(file.read().split())
