"""The directories that entries of an archive lie in: found, or made where the archive leaves them out."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from typing import Protocol

from builder.errors import LayerError
from builder.filesystem import kinds
from builder.filesystem.syscalls import MAX_LINKS, open_beneath, open_in_root
from builder.filesystem.tree import FileInfo, FileTree

_KEPT = 64  # open descriptors
_DEFAULT = FileInfo(kinds.DIRECTORY, 0o755)


class Maker(Protocol):
    """Who makes a directory that is missing."""

    def make_directory(
        self, parent: int, name: str, path: str, info: FileInfo, xattrs: Mapping[str, bytes]
    ) -> None: ...


class Parents:
    """Opens directories below a root by their paths in the archive, resolving symbolic links inside the root.

    `implicit` gathers the paths of what had to be made up, `hidden` the directories below which the layers further down
    do not count (opaque ones). Descriptors are O_PATH ones and stay good until a few dozen other directories were
    opened, or until `forget`.
    """

    def __init__(self, root: int, below: FileTree | None, maker: Maker) -> None:
        self._root = root
        self._below = below
        self._maker = maker
        self._open: dict[str, tuple[str, int]] = {}
        self._retired: list[int] = []
        self.implicit: set[str] = set()
        self.hidden: set[str] = set()

    def open(self, path: str, *, create: bool = True) -> tuple[str, int]:
        """The directory's resolved path and a descriptor. Without `create` a missing one gives -1."""
        known = self._open.get(path)
        if known is not None:
            return known
        found = self._find(path)
        if found is None:
            found = self._walk(path, create)
            if found[1] < 0:
                return found
        while self._retired:
            os.close(self._retired.pop())
        if len(self._open) >= _KEPT:
            oldest = next(iter(self._open))
            # Someone up the stack may still use it: it is closed when the next one is opened.
            self._retired.append(self._open.pop(oldest)[1])
        self._open[path] = found
        return found

    def is_hidden(self, path: str) -> bool:
        """Whether an opaque directory lies above `path`."""
        if not self.hidden:
            return False
        while path:
            path = path.rpartition("/")[0]
            if path in self.hidden:
                return True
        return False

    def forget(self, keep: int = -1) -> None:
        """Drop all descriptors: a directory was removed. `keep` stays open until the next call of `open`."""
        for _, descriptor in self._open.values():
            if descriptor == keep:
                self._retired.append(descriptor)
            else:
                os.close(descriptor)
        self._open.clear()

    def forget_links(self) -> None:
        """Drop what was reached through symbolic links: one of them may have been replaced."""
        for path in [path for path, (resolved, _) in self._open.items() if resolved != path]:
            self._retired.append(self._open.pop(path)[1])

    def close(self) -> None:
        self.forget()
        while self._retired:
            os.close(self._retired.pop())

    def _find(self, path: str) -> tuple[str, int] | None:
        """The quick way: the directory is there, and no symbolic link on the way."""
        try:
            return path, open_beneath(self._root, path, os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise

    def _walk(self, path: str, create: bool) -> tuple[str, int]:
        """Component by component, through links, making what is missing."""
        pending = path.split("/")[::-1]
        resolved: list[str] = []
        links = 0
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if resolved:
                    resolved.pop()
                continue
            parent = "/".join(resolved)
            here = f"{parent}/{part}" if parent else part
            link, found = self._look(here)
            if link is None and not found:
                info = self._info_below(here)
                if info is not None and info.kind == kinds.SYMLINK:
                    link = info.link
                    self.implicit.add(here)
                elif not create:
                    return "/".join([here, *(rest for rest in reversed(pending) if rest)]), -1
                else:
                    self._make(parent, part, here, info)
            if link is None:
                resolved.append(part)
                continue
            links += 1
            if links > MAX_LINKS:
                raise LayerError("too many levels of symbolic links", place=path)
            if link.startswith("/"):
                resolved.clear()
            pending.extend(link.split("/")[::-1])
        result = "/".join(resolved)
        return result, open_in_root(self._root, result, os.O_PATH)

    def _look(self, path: str) -> tuple[str | None, bool]:
        """Where a symbolic link leads, and whether a directory is there. A whiteout counts as nothing."""
        try:
            descriptor = open_beneath(self._root, path, os.O_PATH)
        except FileNotFoundError:
            return None, False
        try:
            status = os.fstat(descriptor)
            if stat.S_ISLNK(status.st_mode):
                return os.readlink("", dir_fd=descriptor), True
            if stat.S_ISDIR(status.st_mode):
                return None, True
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                self.hidden.add(path)
                return None, False
            raise LayerError("an entry lies below it, but it is no directory", place=path)
        finally:
            os.close(descriptor)

    def _info_below(self, path: str) -> FileInfo | None:
        if self._below is None or path in self.hidden or self.is_hidden(path):
            return None
        return self._below.lstat(path)

    def _make(self, parent: str, name: str, path: str, below: FileInfo | None) -> None:
        xattrs: dict[str, bytes] = {}
        info = _DEFAULT
        if below is not None:
            if below.kind != kinds.DIRECTORY:
                raise LayerError("an entry lies below it, but it is no directory", place=path)
            info = below
        descriptor = open_in_root(self._root, parent, os.O_PATH)
        try:
            self._maker.make_directory(descriptor, name, path, info, xattrs)
        finally:
            os.close(descriptor)
        self.implicit.add(path)
