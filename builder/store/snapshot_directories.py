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
from builder.sandbox.namespaces import in_user_namespace

PRIVILEGED = "snapshots"
"""The directory of privileged processes: with CAP_SYS_ADMIN, and in no user namespace."""


def own_snapshots(root: str) -> Snapshots:
    """Those of this process, in the store at `root`."""
    return Snapshots(root, name=own_name(), userxattr=not is_privileged(), erofs=is_privileged())


def own_name() -> str:
    """The name of that directory, which tells this kind of process from others."""
    if is_privileged():
        return PRIVILEGED
    if not in_user_namespace():
        return f"{PRIVILEGED}-unprivileged"
    maps = [_read(f"/proc/self/{name}_map") for name in ("uid", "gid")]
    return f"{PRIVILEGED}-user-{xxhash.xxh3_64_hexdigest(repr(maps).encode())}"


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
