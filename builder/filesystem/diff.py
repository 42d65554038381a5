"""What a step changed: an overlayfs upper directory as the entries of a layer.

The rules are BuildKit's (its overlayfs differ and containerd's change writer), so that equal steps give equal layers:
- A file that was copied up but is the same as below is left out: type, mode, owner, device and capability, and for all
  but directories size and time. Where both times are whole seconds the content decides, since one of the two may have
  been cut by a tar archive.
- A whiteout of what is not there below is left out.
- The directories above every entry are included, so that a layer is complete in itself.
- Of the hard links to one file the first entry holds the content; links that did not change are not followed, hence
  `ln /a /b` on a file of a lower layer makes a separate file.
- `security.capability` is kept, all other extended attributes are dropped. Sockets are skipped.
- A file that is named like a whiteout is written as it is, and is one for whoever reads the layer.
Where BuildKit lists the deleted files of an opaque directory one by one, we write the opaque marker: the same tree.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator

import msgspec

from builder.errors import LayerError
from builder.filesystem import kinds
from builder.filesystem.descriptor import Directory
from builder.filesystem.layered import LayeredTree
from builder.filesystem.overlay_format import CAPABILITY, OWN_PREFIXES, attributes, file_info, is_opaque, is_renamed
from builder.filesystem.syscalls import open_beneath
from builder.filesystem.tar import PIECE, WHITEOUT_PREFIX, TarWriter
from builder.filesystem.tree import FileInfo

_SECOND = 1_000_000_000
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE = FileInfo(kinds.OPAQUE, 0)
_NO_WHITEOUTS = tuple(WHITEOUT_PREFIX + name for name in ("", ".", ".."))  # no reader takes them


class Change(msgspec.Struct):
    """One entry of a layer. `info.kind` may be WHITEOUT (`path` is what is gone) or OPAQUE (`path` is the directory).

    `hardlink` is the path of the earlier entry that this one links to. `source` says where the content is: a
    directory's descriptor, good until the next change is taken, and its name in there.
    """

    path: str
    info: FileInfo
    xattrs: dict[str, bytes]
    hardlink: str | None = None
    source: tuple[int, str] = (-1, "")

    def open(self) -> int:
        """A descriptor of a regular file's content; the caller closes it."""
        directory, name = self.source
        return os.open(name, _READ, dir_fd=directory)


class LeftOut(msgspec.Struct):
    """What is in an upper directory and makes no entry of its layer: `linked` are files of which an entry is another
    name, `paths` is all else. `misread` are paths whose entries say something else: a name with a whiteout's prefix is
    one, whatever has it."""

    paths: list[str] = []
    linked: list[str] = []
    misread: list[str] = []


def changes(
    upper: str | os.PathLike[str], lowers: LayeredTree | None, left_out: LeftOut | None = None
) -> Iterator[Change]:
    """The entries of the layer that `upper` makes over `lowers` (None: nothing below), sorted by their components.

    `left_out` is filled. Nobody may write to either meanwhile. Raises LayerError for what cannot be a layer (a
    redirected directory), OSError when the directory cannot be read.
    """
    walk = _Walk(upper, lowers, LeftOut() if left_out is None else left_out)
    try:
        yield from walk.run()
    finally:
        walk.close()


def drop(upper: str | os.PathLike[str], paths: Iterable[str]) -> None:
    """Remove what a layer leaves out, so that `upper` holds what the layer does: over other layers, where the same
    paths have something else, the rest would be wrong. Directories keep their times, and stay if they hold something
    else. Raises OSError."""
    root = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in sorted(paths, key=lambda path: path.count("/"), reverse=True):  # what is in directories first
            above, _, name = path.rpartition("/")
            parent = open_beneath(root, above, os.O_RDONLY | os.O_DIRECTORY)
            try:
                before = os.fstat(parent)
                try:
                    os.unlink(name, dir_fd=parent)
                except IsADirectoryError:
                    try:
                        os.rmdir(name, dir_fd=parent)
                    except OSError as error:
                        if error.errno != errno.ENOTEMPTY:
                            raise
                os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))
            finally:
                os.close(parent)
    finally:
        os.close(root)


def write_changes(entries: Iterable[Change], writer: TarWriter) -> int:
    """Write entries as tar, reading each file once; returns their number. Does not end the archive."""
    count = 0
    for change in entries:
        count += 1
        kind = change.info.kind
        xattrs = {name: value for name, value in change.xattrs.items() if not name.startswith(OWN_PREFIXES)}
        if kind == kinds.WHITEOUT:
            writer.whiteout(change.path)
        elif kind == kinds.OPAQUE:
            writer.opaque(change.path)
        elif kind == kinds.FILE and change.hardlink is None and change.info.size:
            descriptor = change.open()
            try:
                writer.add(change.path, change.info, xattrs=xattrs, content=descriptor)
            finally:
                os.close(descriptor)
        else:
            writer.add(change.path, change.info, xattrs=xattrs, hardlink=change.hardlink)
    return count


class _Walk:
    """A walk over an upper directory, depth first, names in the order of their bytes."""

    def __init__(self, upper: str | os.PathLike[str], lowers: LayeredTree | None, left_out: LeftOut) -> None:
        self._left_out = left_out
        self._upper = os.fspath(upper)
        self._lowers = lowers
        self._root = os.open(self._upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._first: dict[tuple[int, int], str] = {}  # of each hard-linked file, the entry with its content
        self._unchanged: dict[tuple[int, int], list[str]] = {}  # of such, the names that make no entry
        self._last = ("", Directory(os.dup(self._root)))  # the directory that was looked at last
        self._waiting: list[Change] = []  # the directories above that were not worth an entry so far

    def close(self) -> None:
        os.close(self._root)

    def run(self) -> Iterator[Change]:
        # The stack holds, for each open directory, its entries to come (last first) and whether it hides what is below.
        stack = [(self._entries(""), self._lowers is None)]
        while stack:
            entries, fresh = stack[-1]
            if not entries:
                stack.pop()
                if len(self._waiting) >= len(stack) > 0:
                    self._left_out.paths += [one.path for one in self._waiting[len(stack) - 1 :] if one is not _GIVEN]
                    del self._waiting[len(stack) - 1 :]
                continue
            path, info = entries.pop()
            if info.kind == kinds.DIRECTORY:
                directory, changed, opaque = self._directory(path, info, fresh)
                self._waiting.append(directory)
                if changed:
                    yield from self._above()
                if opaque:
                    yield Change(path, _OPAQUE, {})
                stack.append((self._entries(path), fresh or opaque or self._is_new(path)))
            elif (change := self._file(path, info, fresh)) is not None:
                yield from self._above()
                yield change
            elif info.identity is not None:
                self._unchanged.setdefault(info.identity, []).append(path)
            else:
                self._left_out.paths.append(path)
        for identity, names in self._unchanged.items():
            (self._left_out.linked if identity in self._first else self._left_out.paths).extend(names)

    def _above(self) -> Iterator[Change]:
        """The directories above the next entry that were not given yet."""
        for index, directory in enumerate(self._waiting):
            if directory.source[0] >= 0:
                self._waiting[index] = _GIVEN
                yield directory

    def _is_new(self, path: str) -> bool:
        """Whether nothing of the lower layers shows through a directory."""
        below = self._lowers.lstat(path) if self._lowers is not None else None
        return below is None or below.kind != kinds.DIRECTORY

    def _entries(self, directory: str) -> list[tuple[str, FileInfo]]:
        """A directory's entries, last first."""
        descriptor = open_beneath(self._root, directory, os.O_RDONLY | os.O_DIRECTORY)
        prefix = f"{directory}/" if directory else ""
        found = []
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    link = os.readlink(entry.name, dir_fd=descriptor) if entry.is_symlink() else ""
                    info = file_info(entry.stat(follow_symlinks=False), link)
                    found.append((prefix + entry.name, info))
                    if entry.name.startswith(WHITEOUT_PREFIX) and info.kind != kinds.WHITEOUT:
                        self._misread(prefix + entry.name)
        finally:
            os.close(descriptor)
        found.sort(key=lambda item: os.fsencode(item[0]), reverse=True)
        return found

    def _misread(self, path: str) -> None:
        """Note an entry that will be taken for a whiteout."""
        if path.rpartition("/")[2] in _NO_WHITEOUTS:
            raise LayerError("no layer can hold this name", place=path, remedy="remove it in the same instruction")
        self._left_out.misread.append(path)

    def _directory(self, path: str, info: FileInfo, fresh: bool) -> tuple[Change, bool, bool]:
        """The directory's entry, whether it changed, and whether it hides a directory below."""
        change = Change(path, info, {}, source=(self._root, path))
        file = f"{self._upper}/{path}"
        names = attributes(file)
        if not names and fresh:
            return change, True, False
        if is_renamed(names):
            raise LayerError(
                "a directory was renamed with overlayfs's redirect_dir, which no layer can say", place=path,
                remedy="mount with redirect_dir=off",
            )  # fmt: skip
        if CAPABILITY in names:
            change.xattrs[CAPABILITY] = os.getxattr(file, CAPABILITY, follow_symlinks=False)
        if fresh or self._lowers is None:
            return change, True, False
        below = self._lowers.lstat(path)
        if below is None or below.kind != kinds.DIRECTORY:
            return change, True, False
        opaque = is_opaque(file, names)
        same = not opaque and (info.mode, info.uid, info.gid) == (below.mode, below.uid, below.gid)
        return change, not same, opaque

    def _file(self, path: str, info: FileInfo, fresh: bool) -> Change | None:
        """The entry for anything but a directory; None when there is none."""
        kind = info.kind
        if kind == kinds.SOCKET:
            return None
        below = None
        if not fresh and self._lowers is not None:
            below = self._lowers.lstat(path)
        if kind == kinds.WHITEOUT:
            return Change(path, info, {}) if below is not None else None
        xattrs: dict[str, bytes] = {}
        if kind == kinds.FILE:
            file = f"{self._upper}/{path}"
            if CAPABILITY in attributes(file):
                xattrs[CAPABILITY] = os.getxattr(file, CAPABILITY, follow_symlinks=False)
        if below is not None and self._same(path, info, below, xattrs):
            return None
        hardlink = None
        if info.identity is not None:
            hardlink = self._first.setdefault(info.identity, path)
            if hardlink == path:
                hardlink = None
        directory, _, name = path.rpartition("/")
        if self._last[0] != directory:
            self._last = (directory, Directory(open_beneath(self._root, directory, os.O_PATH | os.O_DIRECTORY)))
        return Change(path, info, xattrs, hardlink, (self._last[1].fd, name))

    def _same(self, path: str, info: FileInfo, below: FileInfo, xattrs: dict[str, bytes]) -> bool:
        if (info.kind, info.mode, info.uid, info.gid, info.device, info.size, info.mtime_ns) != (
            below.kind, below.mode, below.uid, below.gid, below.device, below.size, below.mtime_ns,
        ):  # fmt: skip
            return False
        assert self._lowers is not None
        if xattrs != self._lowers.xattrs(path):
            return False
        if info.mtime_ns % _SECOND:
            return True
        if info.kind == kinds.SYMLINK:
            return info.link == below.link
        return info.kind != kinds.FILE or not info.size or self._same_content(path)

    def _same_content(self, path: str) -> bool:
        assert self._lowers is not None
        ours = open_beneath(self._root, path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            theirs = self._lowers.open(path)
            try:
                if not stat.S_ISREG(os.fstat(ours).st_mode):
                    return False
                while True:
                    piece = os.read(ours, PIECE)
                    if piece != os.read(theirs, PIECE):
                        return False
                    if not piece:
                        return True
            finally:
                os.close(theirs)
        finally:
            os.close(ours)


_GIVEN = Change("", FileInfo(kinds.DIRECTORY, 0), {})
