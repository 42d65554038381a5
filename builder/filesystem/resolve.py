"""Symbolic links as they count inside a root."""

from __future__ import annotations

from builder.errors import LayerError
from builder.filesystem import kinds
from builder.filesystem.tree import Lookup

MAX_LINKS = 255


def resolve(tree: Lookup, path: str, *, follow_last: bool = True) -> str:
    """Where `path` leads inside `tree`: the path of the file itself, with no symbolic link left in it.

    Follows containerd's `fs.RootPath`: an absolute link starts again at the root, `..` stops at the root and leaves
    what a link led to (not the link's own directory), and components that do not exist are kept as they are. With
    `follow_last=False` a link at the very end is not followed. Raises LayerError after 255 links.
    """
    pending = path.split("/")[::-1]
    resolved: list[str] = []
    links = 0
    missing = -1  # from how many components on nothing exists: no need to ask again
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if resolved:
                resolved.pop()
            if len(resolved) < missing:
                missing = -1
            continue
        resolved.append(part)
        if missing >= 0:
            continue
        info = tree.lstat("/".join(resolved))
        if info is None:
            missing = len(resolved)
        elif info.kind == kinds.SYMLINK and (follow_last or any(rest not in ("", ".") for rest in pending)):
            links += 1
            if links > MAX_LINKS:
                raise LayerError("too many levels of symbolic links", place=path)
            resolved.pop()
            if info.link.startswith("/"):
                resolved.clear()
            pending.extend(info.link.split("/")[::-1])
    return "/".join(resolved)
