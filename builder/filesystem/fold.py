"""Unpacked layers of small files, folded into one directory that means the same to an overlay.

It holds what the layers become when they are squashed, as overlayfs keeps a layer, with times to the nanosecond.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from builder.filesystem import kinds
from builder.filesystem.diff import Change
from builder.filesystem.overlay_format import OPAQUE, attributes, is_privileged, own_prefix
from builder.filesystem.squash import squash
from builder.filesystem.tree import FileTree


class Unfoldable(Exception):
    """The layers hold something that is not folded: device nodes, pipes, attributes of the root."""


def fold_layers(layers: Sequence[str], into: str, below: FileTree) -> None:
    """Fill the empty directory `into` with what these layers, top first, say over those of `below`. Nobody may be
    writing to any. Raises Unfoldable, OSError."""
    for directory in (into, *layers):
        if any(name in OPAQUE or not name.startswith(own_prefix()) for name in attributes(directory)):
            raise Unfoldable("the root has attributes")
    root = os.stat(layers[0])
    os.chown(into, root.st_uid, root.st_gid)
    os.chmod(into, stat.S_IMODE(root.st_mode))
    made: list[tuple[str, Change]] = []
    for change in squash(layers, below=below):
        path = f"{into}/{change.path}"
        if change.info.kind == kinds.WHITEOUT:
            os.mknod(path, stat.S_IFCHR)
        elif change.info.kind == kinds.OPAQUE:
            _make_opaque(path)
        elif change.hardlink is not None:
            os.link(f"{into}/{change.hardlink}", path, follow_symlinks=False)
        else:
            _make(change, path)
            made.append((path, change))
    for path, change in reversed(made):  # a directory's after what is in it: its time, and what would be inherited
        for name, value in change.xattrs.items():
            os.setxattr(path, name, value, follow_symlinks=False)
        os.utime(path, ns=(change.info.mtime_ns, change.info.mtime_ns), follow_symlinks=False)
    os.utime(into, ns=(root.st_mtime_ns, root.st_mtime_ns))


def _make(change: Change, path: str) -> None:
    info = change.info
    if info.kind == kinds.DIRECTORY:
        os.mkdir(path)
    elif info.kind == kinds.FILE:
        _copy(change, path)
    elif info.kind == kinds.SYMLINK:
        os.symlink(info.link, path)
    else:
        raise Unfoldable(f"{change.path} is a {kinds.word(info.kind)}")
    os.chown(path, info.uid, info.gid, follow_symlinks=False)
    if info.kind != kinds.SYMLINK:
        os.chmod(path, info.mode)


def _copy(change: Change, path: str) -> None:
    reading = change.open()
    try:
        content = os.read(reading, change.info.size + 1)
    finally:
        os.close(reading)
    with open(path, "xb") as file:
        file.write(content)
    if len(content) != change.info.size:
        raise Unfoldable(f"{change.path} cannot be read at once")


def _make_opaque(path: str) -> None:
    os.setxattr(path, OPAQUE[not is_privileged()], b"y")
