"""Several unpacked layers as one.

Both forms walk the stack once, entries sorted by their components, and are deterministic. Hard links are kept where
they were hard links within a layer. Attributes stay as the layers have them: squashing a base image changes nothing
in its tree.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from builder.filesystem import kinds
from builder.filesystem.diff import Change
from builder.filesystem.layered import LayeredTree
from builder.filesystem.tree import FileInfo, FileTree

_OPAQUE = FileInfo(kinds.OPAQUE, 0)


def squash(layers: Sequence[str | os.PathLike[str]], *, below: FileTree | None = None) -> Iterator[Change]:
    """The entries of one layer that does what `layers` (top first) do; give them to `write_changes`.

    Without `below` that is the whole tree, with no whiteouts. With `below`, the layers underneath, whiteouts and opaque
    directories are kept where there is something for them to hide. Sockets are left out.
    """
    with LayeredTree(layers) as tree:
        yield from _walk(tree, below)


def _walk(tree: LayeredTree, below: FileTree | None) -> Iterator[Change]:
    first: dict[tuple[int, int], str] = {}
    # Entries to come, last first, each with whether the layers below still show through its directory.
    pending = _children(tree, "", below is not None)
    while pending:
        path, info, layer, merged = pending.pop()
        if info.kind == kinds.SOCKET:
            continue
        lower = below.lstat(path) if merged and below is not None else None
        if info.kind == kinds.WHITEOUT:
            if lower is not None:
                yield Change(path, info, {})
            continue
        xattrs = tree.all_xattrs(layer, path)
        hardlink = None
        if info.identity is not None:
            hardlink = first.setdefault(info.identity, path)
            if hardlink == path:
                hardlink = None
        yield Change(path, info, xattrs, hardlink, tree.source(layer, path) if info.kind == kinds.FILE else (-1, ""))
        if info.kind == kinds.DIRECTORY:
            shows = lower is not None and lower.kind == kinds.DIRECTORY
            if shows and tree.opaque(path):
                yield Change(path, _OPAQUE, {})
                shows = False
            pending.extend(_children(tree, path, shows))


def _children(tree: LayeredTree, directory: str, merged: bool) -> list[tuple[str, FileInfo, int, bool]]:
    prefix = f"{directory}/" if directory else ""
    return [(prefix + name, info, layer, merged) for name, info, layer in reversed(tree.scan_layers(directory))]
