"""Who may come near a store: its owner alone (and root), as with Docker's /var/lib/docker. And what is none.

Unpacked layers and cache mounts hold set-user-id programs of root and device nodes, which another user of the machine
must not reach; the cache knows the values of ARG and ENV; and whoever can open a file can lock it, so that all others
wait. The directory ROOT keeps them out, and what is in it may have the rights that images want.

Whoever can write to ROOT could lead root elsewhere, who comes to work there, by a link in place of a part: what is
unfinished is removed, files are opened and made by their names. So in a store that is not ours alone no part may be a
link, or another's. It is looked at once: a user who changes it while root is at work there can still mislead root.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress

from builder.errors import StoreError
from builder.oci.digests import is_hex

_OTHERS, _WRITING = 0o077, 0o022

_NAMES = frozenset(
    """oci-layout index.json blobs tmp locks reserve mounts leases builds repeats failed partial quarantine
    manifest-lists lost+found""".split()
)
_BEGINNINGS = ("cache.db", "snapshots")
_BELOW = ("blobs/sha256", "leases/gate")
_WRITTEN = ("cache.db", "locks", "reserve")
"""What is written to where it is; other files are replaced."""


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


def secure(root: str) -> None:
    """Make the directory of a store, or see to it that what is there is one, safe to work in, and its owner's alone.

    One that holds other things, too, keeps its rights, since who named the wrong directory would lose it for all
    others; so does one whose file system has none to change. Raises OSError, and StoreError for what is not safe.
    """
    try:
        found = os.stat(root)
    except FileNotFoundError:
        make_private(root)
        return
    complete = os.path.exists(os.path.join(root, "oci-layout"))
    own = found.st_uid == os.geteuid()
    if complete and own and not found.st_mode & _OTHERS:
        return
    names = os.listdir(root)
    parts = list(filter(_is_ours, names))
    if not complete and parts and len(parts) < len(names):
        other = min(set(names) - set(parts))
        raise StoreError(
            f"this is no store: beside {min(parts)!r} it holds {other!r}",
            place=root,
            remedy="choose a directory of its own with --root; what a store's 'tmp' holds is removed",
        )
    if not own or found.st_mode & _WRITING:
        _check(root, parts, {0, found.st_uid, os.geteuid()})
    if own and found.st_mode & _OTHERS and len(parts) == len(names):
        with suppress(OSError):
            os.chmod(root, 0o700)


def _check(root: str, parts: Iterable[str], trusted: set[int]) -> None:
    """Raises StoreError for a part of a store that leads elsewhere, or is another's."""
    for name in (*parts, *_BELOW):
        path = os.path.join(root, name)
        try:
            found = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISDIR(found.st_mode) and not stat.S_ISREG(found.st_mode):
            cause = "is a link, or something else that is no part of a store"
        elif found.st_uid not in trusted:
            cause = f"belongs to user {found.st_uid}, neither to the store's owner nor to you"
        elif name.startswith(_WRITTEN) and found.st_nlink > 1:
            cause = "is a file that has another name, too"
        else:
            continue
        raise StoreError(cause, place=path, remedy="somebody may want you to write elsewhere: see who put it there")


def _is_ours(name: str) -> bool:
    """Whether this is the name of a part of a store, or of a directory that becomes one (`make_apart`)."""
    return name in _NAMES or name.startswith(_BEGINNINGS) or is_hex(name, 16)
