"""Unpacked layers of a few plain files, folded into one directory that means the same to an overlay.

What the layers delete of those below them it deletes, too: whiteouts and opaque directories are kept.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence

from builder.filesystem.overlay_format import OPAQUE, OWN_PREFIXES, attributes, is_opaque
from builder.filesystem.syscalls import remove_tree

_OF_UPPERS = ("origin", "impure", "uuid")  # overlayfs's own attributes that say nothing of a layer below another
_TO_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_TO_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Unfoldable(Exception):
    """The layers hold something that is not folded: hard links, device nodes, attributes, …"""


def fold_layers(layers: Sequence[str], into: str, below: Callable[[str], bool]) -> None:
    """Fill the empty directory `into` with what these layers hold, given top first; `below` tells whether those under
    them have a file at a path. Nobody may be writing to any. Files become others with the same content, owner, mode and
    time of change. Raises Unfoldable, OSError."""
    fold = _Fold(into, below)
    for layer in reversed(layers):
        fold.add(layer)
    fold.finish()


class _Fold:
    """What some layers say together. Paths are relative and begin with a slash; the root's is empty."""

    def __init__(self, into: str, below: Callable[[str], bool]) -> None:
        self._into = into
        self._below = below
        self._files: set[str] = set()
        self._directories: dict[str, os.stat_result] = {}  # as the topmost layer has them
        self._opaque: set[str] = set()

    def add(self, layer: str) -> None:
        """Put a layer over what is there."""
        if any(name in OPAQUE for name in _require_plain(layer)):
            raise Unfoldable(f"{layer} is opaque itself")
        self._directories[""] = os.stat(layer)
        directories = [""]
        for above in directories:  # more come while it runs
            with os.scandir(layer + above) as entries:
                for entry in entries:
                    path = f"{above}/{entry.name}"
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        self._put_directory(layer, path)
                        self._directories[path] = status
                        directories.append(path)
                    else:
                        self._put(layer, path, status)

    def finish(self) -> None:
        """Give directories what putting something into them changes."""
        for path, status in sorted(self._directories.items(), key=lambda item: item[0], reverse=True):
            target = self._into + path
            os.chown(target, status.st_uid, status.st_gid)
            os.chmod(target, stat.S_IMODE(status.st_mode))
            os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))

    def _put_directory(self, layer: str, path: str) -> None:
        source, target = layer + path, self._into + path
        marks = _require_plain(source)
        opaque = is_opaque(source, marks)
        if not opaque and any(name in OPAQUE for name in marks):
            raise Unfoldable(f"{source} is opaque in another way")
        if opaque or path not in self._directories:
            if not opaque and path in self._files and self._hides(path):
                raise Unfoldable(f"{source} lies over what hides a directory")
            self._remove(path)
            os.mkdir(target)
        if opaque:
            os.setxattr(target, next(name for name in marks if name in OPAQUE), b"y")
            self._opaque.add(path)

    def _put(self, layer: str, path: str, status: os.stat_result) -> None:
        source, target = layer + path, self._into + path
        self._remove(path)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:  # a whiteout, often one of many names for one
            if not self._hides(path):
                return
            os.mknod(target, stat.S_IFCHR)
        elif status.st_nlink > 1:
            raise Unfoldable(f"{source} is a hard link")
        elif stat.S_ISREG(status.st_mode):
            _require_plain(source)
            _copy(source, target, status)
        elif stat.S_ISLNK(status.st_mode):
            _require_plain(source)
            os.symlink(os.readlink(source), target)
            os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
            os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns), follow_symlinks=False)
        else:
            raise Unfoldable(f"{source} is neither a file nor a link")
        self._files.add(path)

    def _remove(self, path: str) -> None:
        """Take away what a layer put at a path."""
        if path in self._files:
            os.unlink(self._into + path)
            self._files.remove(path)
        elif path in self._directories:
            remove_tree(self._into + path)
            inside = f"{path}/"
            self._files = {one for one in self._files if not one.startswith(inside)}
            kept = {one: status for one, status in self._directories.items() if not f"{one}/".startswith(inside)}
            self._directories = kept

    def _hides(self, path: str) -> bool:
        """Whether a whiteout has anything to hide. One that has not must not be there: of a directory that only one
        layer has, the kernel lists everything."""
        above = path
        while above := above.rpartition("/")[0]:
            if above in self._opaque:
                return False
        return self._below(path[1:])


def _copy(source: str, target: str, status: os.stat_result) -> None:
    reading = os.open(source, _TO_READ)
    try:
        content = os.read(reading, status.st_size + 1)
    finally:
        os.close(reading)
    if len(content) != status.st_size:
        raise Unfoldable(f"{source} cannot be read at once")
    writing = os.open(target, _TO_MAKE, 0o600)
    try:
        if os.write(writing, content) != len(content):
            raise Unfoldable(f"{target} cannot be written at once")
        os.chown(writing, status.st_uid, status.st_gid)
        os.chmod(writing, stat.S_IMODE(status.st_mode))
        os.utime(writing, ns=(status.st_mtime_ns, status.st_mtime_ns))
    finally:
        os.close(writing)


def _require_plain(path: str) -> list[str]:
    """The marks of overlayfs that a file or directory has. Raises Unfoldable if it has other attributes."""
    marks = attributes(path)
    for name in marks:
        if not name.startswith(OWN_PREFIXES) or (name not in OPAQUE and name.rpartition(".")[2] not in _OF_UPPERS):
            raise Unfoldable(f"{path} has the attribute {name}")
    return marks
