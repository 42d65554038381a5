"""Copies of unpacked layers, one over the other, without a mount: for steps in a chroot."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from functools import cache

from . import capabilities, namespaces
from .rootfs import DEVICES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_OWN_PREFIXES = ("trusted.overlay.", "user.overlay.")
_HARMLESS = frozenset(os.makedev(*device) for device in DEVICES.values())
_CLONE = 0x40049409  # FICLONE: share the blocks, on file systems that can
_MOST = 1 << 26  # bytes of one sendfile(2)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _go_on() -> None:
    """Nothing ends the copy."""


def copy_layers(
    layers: tuple[str, ...], into: str, *, overlay: bool = True, check: Callable[[], None] = _go_on
) -> None:
    """Copy layers, the topmost first, into a directory. Nobody may be writing to either.

    With `overlay` whiteouts and opaque directories mean what they mean to overlayfs. Raises OSError, and what `check`
    raises, which is called with each file and each piece of a large one.
    """
    for layer in reversed(layers):
        _Copy(layer, into, overlay, check).run()


class _Copy:
    """The copy of one layer. Hard links become files of their own, as they do in an overlay when one is written to:
    the others must not change with it. In a mount (no overlay) they are kept."""

    def __init__(self, source: str, target: str, overlay: bool, check: Callable[[], None]) -> None:
        self._source = source
        self._target = target
        self._overlay = overlay
        self._check = check
        self._links: dict[tuple[int, int], str] = {}
        self._directories: list[tuple[str, os.stat_result]] = [("", os.stat(source))]

    def run(self) -> None:
        waiting = [""]
        while waiting:
            directory = waiting.pop()
            with os.scandir(self._source + directory) as entries:
                for entry in entries:
                    self._check()
                    path = f"{directory}/{entry.name}"
                    status = entry.stat(follow_symlinks=False)
                    if self._copy(path, status):
                        waiting.append(path)
        for path, status in reversed(self._directories):
            set_metadata(self._source + path, self._target + path, status)

    def _copy(self, path: str, status: os.stat_result) -> bool:
        """Copy one file; whether it is a directory."""
        source, target = self._source + path, self._target + path
        if stat.S_ISDIR(status.st_mode):
            self._make_directory(source, target)
            self._directories.append((path, status))
            return True
        remove_tree(target)
        if self._overlay and stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            return False  # a whiteout
        if status.st_nlink > 1 and not self._overlay:
            first = self._links.setdefault((status.st_dev, status.st_ino), target)
            if first != target:
                os.link(first, target, follow_symlinks=False)
                return False
        copy_file(source, target, status, self._check)
        return False

    def _make_directory(self, source: str, target: str) -> None:
        try:
            there = os.lstat(target)
        except FileNotFoundError:
            os.mkdir(target, 0o700)
            return
        if not stat.S_ISDIR(there.st_mode):
            os.unlink(target)
        elif self._overlay and _is_opaque(source):
            remove_tree(target)
        else:
            return
        os.mkdir(target, 0o700)


def copy_file(source: str, target: str, status: os.stat_result, check: Callable[[], None] = _go_on) -> None:
    """Copy anything but a directory, with its metadata. Sockets are left out, and all devices but those that every step
    has: here nothing else keeps a step from opening one, which is a device of the host's."""
    mode = status.st_mode
    if stat.S_ISREG(mode):
        _copy_content(source, target, check)
    elif stat.S_ISLNK(mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISFIFO(mode):
        os.mkfifo(target, 0o600)
    elif stat.S_ISSOCK(mode) or status.st_rdev not in _HARMLESS or not stat.S_ISCHR(mode):
        return
    else:
        try:
            os.mknod(target, stat.S_IFMT(mode) | 0o600, status.st_rdev)
        except PermissionError:
            return
    set_metadata(source, target, status)


def _copy_content(source: str, target: str, check: Callable[[], None]) -> None:
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.ioctl(writing, _CLONE, reading)
            except OSError:
                while os.sendfile(writing, reading, None, _MOST):
                    check()
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def set_metadata(source: str, target: str, status: os.stat_result) -> None:
    """Give a file the owner, mode, attributes and times of another, which `status` describes."""
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))
        for name in _attributes(source):
            if not name.startswith(_own_prefix()):
                try:
                    os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
                except OSError as error:
                    if error.errno not in (errno.ENOTSUP, errno.EPERM):
                        raise
    os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns), follow_symlinks=False)


def _attributes(path: str) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENODATA):
            return []
        raise


@cache
def _own_prefix() -> str:
    """How the names of overlayfs's marks begin in the layers that this process unpacks; others are attributes like
    any."""
    privileged = capabilities.has(capabilities.SYS_ADMIN) and not namespaces.in_user_namespace()
    return _OWN_PREFIXES[not privileged]


def _is_opaque(path: str) -> bool:
    name = f"{_own_prefix()}opaque"
    return name in _attributes(path) and os.getxattr(path, name) == b"y"


def remove_tree(path: str) -> None:
    """`rm -rf`; links are removed, never followed."""
    try:
        os.unlink(path)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass
    top = os.open(path, _DIRECTORY)
    try:
        _empty(top)
    finally:
        os.close(top)
    os.rmdir(path)


def _empty(top: int) -> None:
    """Remove all below a directory. What is deep is moved up before, so that neither long paths nor deep trees stop it,
    and no path is followed that somebody could have changed."""
    waiting = _remove_files(top)
    while waiting:
        name = waiting.pop()
        inner = os.open(name, _DIRECTORY, dir_fd=top)
        try:
            for deeper in _remove_files(inner):
                moved = os.urandom(16).hex()
                os.rename(deeper, moved, src_dir_fd=inner, dst_dir_fd=top)
                waiting.append(moved)
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=top)


def _remove_files(directory: int) -> list[str]:
    """Unlink everything but directories; their names."""
    with os.scandir(directory) as entries:
        names = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    for name, is_directory in names.items():
        if not is_directory:
            os.unlink(name, dir_fd=directory)
    return [name for name, is_directory in names.items() if is_directory]
