"""A build context in a directory of the host, seen as BuildKit sees it.

What a context loses on its way into a build (fsutil and `client/solve.go` of BuildKit): owners (all is 0:0) and
extended attributes, file capabilities among them. Modes with setuid bits, times, hard links, FIFOs and devices are
kept. A socket arrives as an empty regular file.

Files are reached through descriptors of directories that were opened one component after the other without following
links, so that neither a link in the context nor one that appears while we look leads out of it. This is as strong as
openat2's RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS (there is no `..` in a path), needs no ctypes, and costs 1 µs a
component.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from operator import itemgetter
from typing import NoReturn

from builder.context.ignore import Matcher
from builder.errors import ContextError
from builder.filesystem import kinds
from builder.filesystem.descriptor import Directory, open_directory
from builder.filesystem.kinds import Kind
from builder.filesystem.moments import Moment
from builder.filesystem.tree import FileInfo

_READ_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_KINDS = {
    stat.S_IFREG: kinds.FILE, stat.S_IFDIR: kinds.DIRECTORY, stat.S_IFLNK: kinds.SYMLINK, stat.S_IFCHR: kinds.CHARACTER,
    stat.S_IFBLK: kinds.BLOCK, stat.S_IFIFO: kinds.FIFO, stat.S_IFSOCK: kinds.FILE,
}  # fmt: skip
_NONE = (0, 0)


class LocalTree:
    """A FileTree over a directory of the host, without what a matcher hides.

    `owners` gives files owners other than 0:0 (an unpacked archive has them). All is looked at after the moment
    `since`. May be used by several threads; files that change meanwhile are reported as they are when looked at. What
    cannot be read raises ContextError.
    """

    def __init__(
        self, root: str, matcher: Matcher | None = None, *, owners: Mapping[str, tuple[int, int]] | None = None
    ) -> None:
        try:
            self._root = open_directory(root)
        except OSError as problem:
            remedy = None if os.path.exists(root) else "the build context must be an existing directory"
            raise ContextError(_reason(problem), place=root, remedy=remedy) from problem
        self.root = root
        self.since = Moment()
        self.matcher = matcher if matcher is not None and matcher.rules.rules else None
        self._owners = owners or {}
        self._last = ("", self._root)
        self._visible: dict[str, bool] = {}

    def lstat(self, path: str) -> FileInfo | None:
        """Metadata of `path`; None if it is missing or hidden."""
        directory, _, name = path.rpartition("/")
        try:
            if not path:
                return self._info("", os.fstat(self._root.fd), self._root, "")
            parent = self._directory(directory)
            info = self._info(path, os.stat(_checked(name), dir_fd=parent.fd, follow_symlinks=False), parent, name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as problem:
            if problem.errno == errno.ENAMETOOLONG:
                return None
            self._refuse(path, problem)
        return None if self.matcher is not None and self._is_hidden(path, info.kind) else info

    def scan(self, path: str) -> list[tuple[str, FileInfo]]:
        """The visible entries of a directory, sorted by their names' bytes."""
        if path and self.matcher is not None and self._is_hidden(path, kinds.DIRECTORY):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        try:
            directory = self._directory(path)
            return self._scan(path, directory)
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as problem:
            self._refuse(path, problem)

    def open(self, path: str) -> int:
        """A descriptor for reading a visible regular file. Raises FileNotFoundError, IsADirectoryError or
        ContextError."""
        if self.matcher is not None and self.matcher.ignored(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        directory, _, name = path.rpartition("/")
        try:
            parent = self._directory(directory)  # held, or the descriptor could be closed before it is used
            descriptor = os.open(_checked(name), _READ_FILE, dir_fd=parent.fd)
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as problem:
            if problem.errno == errno.ENXIO:  # a socket, which counts as an empty file
                return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            self._refuse(path, problem)
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return descriptor
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        raise ContextError("is not a regular file", place=self._place(path))

    def xattrs(self, path: str) -> dict[str, bytes]:
        """Always empty: a context carries no extended attributes into the build."""
        return {}

    def _directory(self, path: str) -> Directory:
        """The directory `path`, which is often the one that was asked for last."""
        known, directory = self._last
        if known == path:
            return directory
        directory = self._root.below(map(_checked, path.split("/"))) if path else self._root
        self._last = (path, directory)
        return directory

    def _scan(self, path: str, directory: Directory) -> list[tuple[str, FileInfo]]:
        prefix = f"{path}/" if path else ""
        matcher = self.matcher
        hidden = matcher.tester(path) if matcher is not None else None
        owners, info = self._owners, self._info
        entries: list[tuple[str, FileInfo]] = []
        descriptor = os.open(".", _READ_DIR, dir_fd=directory.fd)  # its own: a shared one would share its offset
        try:
            with os.scandir(descriptor) as found:
                for entry in found:
                    name = entry.name
                    if (
                        hidden is not None
                        and hidden(prefix + name)
                        and not (entry.is_dir(follow_symlinks=False) and self._holds_visible(prefix + name))
                    ):
                        continue
                    try:
                        status = entry.stat(follow_symlinks=False)
                        if status.st_mode & 0o170000 == 0o100000 and status.st_nlink == 1 and not owners:
                            one = FileInfo(
                                kinds.FILE,
                                status.st_mode & 0o7777,
                                0,
                                0,
                                status.st_size,
                                status.st_mtime_ns,
                                "",
                                _NONE,
                                1,
                                None,
                                status.st_ino,
                                status.st_ctime_ns,
                            )
                        else:
                            one = info(prefix + name, status, directory, name)
                    except FileNotFoundError:  # removed while we looked
                        continue
                    entries.append((name, one))
        finally:
            os.close(descriptor)
        if "".join([name for name, _ in entries]).isascii():
            entries.sort(key=itemgetter(0))
        else:  # escaped bytes do not sort as bytes do
            entries.sort(key=lambda entry: os.fsencode(entry[0]))
        return entries

    def _info(self, path: str, status: os.stat_result, directory: Directory, name: str) -> FileInfo:
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        size, link, device, links, identity = 0, "", _NONE, 1, None
        if kind == kinds.SYMLINK:
            link = os.readlink(name, dir_fd=directory.fd)
        elif kind == kinds.FILE:
            size = status.st_size
            if status.st_nlink > 1:
                links, identity = status.st_nlink, (status.st_dev, status.st_ino)
        elif kind == kinds.CHARACTER or kind == kinds.BLOCK:
            device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        uid, gid = self._owners.get(path, _NONE)
        return FileInfo(
            kind,
            status.st_mode & 0o7777,
            uid,
            gid,
            size,
            status.st_mtime_ns,
            link,
            device,
            links,
            identity,
            status.st_ino,
            status.st_ctime_ns,
        )

    def _is_hidden(self, path: str, kind: Kind) -> bool:
        if self.matcher is None or not self.matcher.ignored(path):
            return False
        return kind != kinds.DIRECTORY or not self._holds_visible(path)

    def _holds_visible(self, path: str) -> bool:
        """Whether a hidden directory shows nevertheless, because an exception keeps something in it."""
        matcher = self.matcher
        assert matcher is not None
        known = self._visible.get(path)
        if known is None:
            known = False if matcher.may_skip_directory(path) else self._search_visible(path)
            self._visible[path] = known
        return known

    def _search_visible(self, path: str) -> bool:
        """Whether anything below `path` is not hidden, without recursion. An unreadable hidden directory holds
        nothing."""
        matcher = self.matcher
        assert matcher is not None
        waiting = [path]
        while waiting:
            current = waiting.pop()
            hidden = matcher.tester(current)
            try:
                directory = self._directory(current)
                descriptor = os.open(".", _READ_DIR, dir_fd=directory.fd)
            except OSError:
                continue
            try:
                with os.scandir(descriptor) as found:
                    for entry in found:
                        child = f"{current}/{entry.name}"
                        if not hidden(child):
                            return True
                        if entry.is_dir(follow_symlinks=False) and not matcher.may_skip_directory(child):
                            waiting.append(child)
            finally:
                os.close(descriptor)
        return False

    def _place(self, path: str) -> str:
        return os.path.join(self.root, path) if path else self.root

    def _refuse(self, path: str, problem: OSError) -> NoReturn:
        remedy = None
        if problem.errno in (errno.EACCES, errno.EPERM):
            remedy = "make it readable, or list it in .dockerignore"
        elif problem.errno == errno.ELOOP:
            raise ContextError("is a symbolic link", place=self._place(path)) from problem
        raise ContextError(_reason(problem), place=self._place(path), remedy=remedy) from problem


def _checked(name: str) -> str:
    if name in ("", ".", "..") or "\0" in name:
        raise ContextError(f"{name!r} cannot be part of a path in the build context")
    return name


def _reason(problem: OSError) -> str:
    return (problem.strerror or str(problem)).lower()
