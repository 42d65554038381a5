"""The view that a build has of files, wherever they are: a directory of the host, a stack of layers, an archive.

Paths are relative to the tree's root, without leading or trailing slash, the root itself is `""`. Names that are not
UTF-8 are kept with surrogate escapes. No method follows a symbolic link, in any component of the path: resolving is
`resolve`'s work, which keeps it inside the root.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from builder.filesystem.kinds import Kind


class FileInfo(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Metadata of one file. There are as many as files: the garbage collector need not look at any.

    `mode` holds the permission bits with setuid, setgid and sticky (0o7777 at most); `mtime_ns` nanoseconds since the
    epoch; `link` a symbolic link's target; `identity` is equal for hard links to one file (None where `links` is 1);
    `inode` and `changed_ns`, the time of its last change, are those of a tree that can tell (0 otherwise): as long as
    both, the size and the time of modification stay, so does the content.
    """

    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    link: str = ""
    device: tuple[int, int] = (0, 0)
    links: int = 1
    identity: tuple[int, int] | None = None
    inode: int = 0
    changed_ns: int = 0


class Lookup(Protocol):
    """Something that knows what is at a path: all that resolving links needs."""

    def lstat(self, path: str) -> FileInfo | None:
        """Metadata of `path`, or None if there is no such file (or a component of it is no directory)."""


class FileTree(Lookup, Protocol):
    """Read access to the files below one root."""

    def scan(self, path: str) -> list[tuple[str, FileInfo]]:
        """The entries of a directory, sorted by their names' bytes. Raises NotADirectoryError or FileNotFoundError."""

    def open(self, path: str) -> int:
        """A descriptor for reading a regular file; the caller closes it."""

    def xattrs(self, path: str) -> dict[str, bytes]:
        """The extended attributes of `path` that belong into a layer."""
