"""Who may come near a store: its owner alone (and root), as with Docker's /var/lib/docker.

Unpacked layers and cache mounts hold set-user-id programs of root and device nodes, which another user of the machine
must not reach; the cache knows the values of ARG and ENV; and whoever can open a file can lock it, so that all others
wait. The directory ROOT keeps them out, and what is in it may have the rights that images want.
"""

from __future__ import annotations

import os
from contextlib import suppress

_OTHERS = 0o077

_NAMES = frozenset(
    """oci-layout index.json blobs tmp locks reserve mounts leases builds repeats failed partial quarantine
    manifest-lists lost+found""".split()
)
_BEGINNINGS = ("cache.db", "snapshots")


def make_private(path: str) -> None:
    """Make a directory unless it is there, with those above it that are missing, for this user alone: so the base
    directory specification has it for `~/.local/share`. Raises OSError."""
    try:
        os.mkdir(path, 0o700)
    except FileNotFoundError:
        make_private(os.path.dirname(path))
        make_private(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


def keep_private(root: str) -> None:
    """Take the rights of others from the directory of a store of ours, which an older version or somebody else made.

    One that holds other things, too, keeps its rights, since who named the wrong directory would lose it for all
    others; so does one whose file system has none to change. Raises OSError."""
    found = os.stat(root)
    if not found.st_mode & _OTHERS or found.st_uid != os.geteuid():
        return
    if all(map(_is_ours, os.listdir(root))):
        with suppress(OSError):
            os.chmod(root, 0o700)


def _is_ours(name: str) -> bool:
    """Whether this is the name of a part of a store."""
    return name in _NAMES or name.startswith(_BEGINNINGS)
