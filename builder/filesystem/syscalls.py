"""openat2(2) and syncfs(2), which Python 3.11 does not have, and what replaces openat2 where it is missing.

Paths are relative to a directory's descriptor; `""` is the directory itself. Linux has openat2 since 5.6; some
container engines' seccomp profiles refuse it. There the path is walked component by component with descriptors, which
is slower but as safe: no component is ever followed by name.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Callable
from contextlib import suppress

MAX_LINKS = 255

_OPENAT2 = 437  # the same number on every architecture
_AT_FDCWD = -100
_NO_MAGICLINKS = 0x02
_NO_SYMLINKS = 0x04
_BENEATH = 0x08
_IN_ROOT = 0x10
_RETRY = 8


@functools.cache
def _openat2() -> Callable[[int, bytes, int, int, int], int] | None:
    """The system call as a function that returns a descriptor or minus an error number; None where it is refused."""
    import ctypes

    class OpenHow(ctypes.Structure):
        _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))

    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    pointer = ctypes.POINTER(OpenHow)
    syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, pointer, ctypes.c_size_t)
    get_errno, size, byref = ctypes.get_errno, ctypes.sizeof(OpenHow), ctypes.byref

    def call(directory: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
        how = OpenHow(flags | os.O_CLOEXEC, mode, resolve)
        result: int = syscall(_OPENAT2, directory, path, byref(how), size)
        return result if result >= 0 else -get_errno()

    probe = call(_AT_FDCWD, b".", os.O_PATH, 0, _IN_ROOT)
    if probe < 0:
        return None
    os.close(probe)
    return call


def _open(root: int, path: str, flags: int, mode: int, resolve: int) -> int | None:
    call = _openat2()
    if call is None:
        return None
    encoded = os.fsencode(path) or b"."
    for _ in range(_RETRY):  # a concurrent rename makes RESOLVE_IN_ROOT say EAGAIN
        result = call(root, encoded, flags, mode, resolve)
        if result >= 0:
            return result
        if result not in (-errno.EAGAIN, -errno.EINTR):
            break
    raise OSError(-result, os.strerror(-result), path)


def open_beneath(root: int, path: str, flags: int, mode: int = 0) -> int:
    """Open `path` below `root` following no symbolic link at all, in no component.

    Raises OSError: ELOOP or ENOTDIR for a link in the way, EXDEV for a path that climbs out.
    """
    descriptor = _open(root, path, flags | os.O_NOFOLLOW, mode, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS)
    return _walk_beneath(root, path, flags, mode) if descriptor is None else descriptor


def open_in_root(root: int, path: str, flags: int) -> int:
    """Open a directory at `path` as if `root` were the root of the file system: links and `..` stay inside."""
    descriptor = _open(root, path, flags | os.O_DIRECTORY, 0, _IN_ROOT | _NO_MAGICLINKS)
    return _walk_in_root(root, path, flags | os.O_DIRECTORY) if descriptor is None else descriptor


def _walk_beneath(root: int, path: str, flags: int, mode: int) -> int:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or path.startswith("/"):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC
    if not parts:
        return os.open(".", flags, dir_fd=root)
    current = root
    try:
        for part in parts[:-1]:
            step = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
            if current != root:
                os.close(current)
            current = step
        return os.open(parts[-1], flags, mode, dir_fd=current)
    finally:
        if current != root:
            os.close(current)


def _walk_in_root(root: int, path: str, flags: int) -> int:
    pending = path.split("/")[::-1]
    trail: list[int] = []  # descriptors from below the root to where we are
    links = 0
    try:
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if trail:
                    os.close(trail.pop())
                continue
            here = trail[-1] if trail else root
            step = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            trail.append(step)
            if stat.S_ISLNK(os.fstat(step).st_mode):
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = os.readlink("", dir_fd=step)
                os.close(trail.pop())
                if target.startswith("/"):
                    while trail:
                        os.close(trail.pop())
                pending.extend(target.split("/")[::-1])
        return os.open(".", flags | os.O_CLOEXEC, dir_fd=trail[-1] if trail else root)
    finally:
        for descriptor in trail:
            os.close(descriptor)


def syncfs(descriptor: int) -> None:
    """Wait until everything written to the file system that holds `descriptor` is on the disk."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def start_writing(descriptor: int) -> None:
    """Have the kernel begin to write a file's pages to the disk, without waiting: a hint, so errors mean nothing."""
    import ctypes

    whole, write = ctypes.c_int64(0), 2  # SYNC_FILE_RANGE_WRITE
    ctypes.CDLL(None).sync_file_range(descriptor, whole, whole, write)


def remove_tree(name: str, *, dir_fd: int | None = None) -> None:
    """Remove a file or a directory with all below it, following no link; what is not there is no error.

    Works by descriptors, one directory at a time, so that neither long paths nor deep trees stop it. Another process
    may remove the same tree meanwhile.
    """
    try:
        os.unlink(name, dir_fd=dir_fd)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass
    with suppress(FileNotFoundError):
        top = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            _empty(top)
        finally:
            os.close(top)
        os.rmdir(name, dir_fd=dir_fd)


def empty_directory(path: str) -> None:
    """Remove all that is in a directory, as `remove_tree` does. Raises OSError."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _empty(directory)
    finally:
        os.close(directory)


def _empty(directory: int) -> None:
    """Remove all below a directory. Goes down by descriptors and up by `..` (checked), so it holds two at most."""
    current = os.dup(directory)
    trail: list[tuple[str, tuple[int, int]]] = []  # the names of the directories we are in, and their parents
    pending = [_remove_files(current)]
    try:
        while True:
            if pending[-1]:
                name = pending[-1].pop()
                status = os.fstat(current)
                try:
                    step = _open_to_empty(name, current)
                except FileNotFoundError:
                    continue
                trail.append((name, (status.st_dev, status.st_ino)))
            elif trail:
                pending.pop()
                step = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=current)
                name, parent = trail.pop()
                status = os.fstat(step)
                if (status.st_dev, status.st_ino) != parent:
                    os.close(step)
                    raise OSError(errno.EBUSY, "a directory was moved while it was removed", name)
                with suppress(FileNotFoundError):
                    os.rmdir(name, dir_fd=step)
            else:
                return
            os.close(current)
            current = step
            if len(pending) == len(trail):
                pending.append(_remove_files(current))
    finally:
        os.close(current)


def _remove_files(directory: int) -> list[str]:
    """Unlink everything but directories; returns their names."""
    directories = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            else:
                with suppress(FileNotFoundError):
                    os.unlink(entry.name, dir_fd=directory)
    return directories


def _open_to_empty(name: str, directory: int) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=directory)
    except PermissionError:  # overlayfs leaves work directories of mode 000; we own them
        os.chmod(name, 0o700, dir_fd=directory)
        return os.open(name, flags, dir_fd=directory)
