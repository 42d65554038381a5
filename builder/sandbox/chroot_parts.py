"""What is put into the root of a step in a chroot, and what the step did to it.

Without mounts nothing keeps a step from writing where it must not, from moving a part away, or from putting a link in
its place. So each part is held by a descriptor from before the step begins, and looked at through it afterwards; paths
of the root, which the step could lead anywhere, are not followed. Files are told by their inodes.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Container
from contextlib import suppress

from . import syscalls
from .chroot_copy import copy_file, remove_tree, set_metadata
from .command import Mount

State = tuple[int, int, int, int, int, int, int, int, int]
"""Inode, mode, owner, group; and of what is no directory size, times of content and of inode, device, links."""
Inode = tuple[int, int]


def state(status: os.stat_result) -> State:
    directory = stat.S_ISDIR(status.st_mode)
    return (
        status.st_ino,
        status.st_mode,
        status.st_uid,
        status.st_gid,
        0 if directory else status.st_size,
        0 if directory else status.st_mtime_ns,
        0 if directory else status.st_ctime_ns,
        status.st_rdev,
        0 if directory else status.st_nlink,
    )


def scan(directory: str, leave_out: Container[Inode]) -> dict[str, State]:
    """Every file below a directory, by its path with a slash before it; a directory before what is in it. What is to be
    left out is, with all that is in it."""
    found: dict[str, State] = {}
    waiting = [""]
    while waiting:
        here = waiting.pop()
        with os.scandir(directory + here) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if (status.st_dev, status.st_ino) in leave_out:
                    continue
                path = f"{here}/{entry.name}"
                found[path] = state(status)
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(path)
    return found


class Part:
    """Something in its place, `path` in the root, for a mount or for the system (None)."""

    def __init__(self, path: str, descriptor: int, mount: Mount | None) -> None:
        self.path = path
        self.mount = mount
        self._descriptor = descriptor
        self._files = f"/proc/self/fd/{descriptor}"
        self._before: dict[str, State] = {}
        status = os.fstat(descriptor)
        self.inode: Inode = (status.st_dev, status.st_ino)
        self._is_directory = stat.S_ISDIR(status.st_mode)

    @property
    def _is_shown_only(self) -> bool:
        return self.mount is not None and self.mount.read_only

    @property
    def _is_given_back(self) -> bool:
        mount = self.mount
        return mount is not None and mount.kind == "bind" and not mount.read_only and self._is_directory

    def remember(self, others: Container[Inode]) -> None:
        """Remember what is in it, but for the `others` that were put into it."""
        if self._is_shown_only or self._is_given_back:
            self._before = self._now(others)

    def _now(self, others: Container[Inode]) -> dict[str, State]:
        found = {"": state(os.fstat(self._descriptor))}
        return found | scan(self._files, others) if self._is_directory else found

    def written(self, root: int, others: Container[Inode]) -> str:
        """What of a read-only part was written to, as a path of the root; '' for nothing. `root` is a descriptor."""
        if not self._is_shown_only:
            return ""
        if not self._is_in_place(root):
            return self.path
        before, after = self._before, self._now(others)
        for path in sorted(before.keys() | after.keys()):
            old, new = before.get(path), after.get(path)
            # That a file got one more link is no write, though it sets the time of its inode.
            if old != new and (old is None or new is None or old[:6] != new[:6] or old[-1] == new[-1]):
                return self.path + path
        return ""

    def _is_in_place(self, root: int) -> bool:
        try:
            found = syscalls.open_in_root(root, self.path, os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            return False
        status = os.fstat(found)
        os.close(found)
        return (status.st_dev, status.st_ino) == self.inode

    def give_back(self, others: Container[Inode]) -> None:
        """Do to the source of a writable mount what the step did to its copy. Others may have written to it meanwhile:
        of each file the last one counts."""
        if not self._is_given_back:
            return
        assert self.mount is not None
        source = self.mount.source
        lock = lock_source(source, fcntl.LOCK_EX)
        try:
            _apply(self._files, self._before, self._now(others), source)
        finally:
            os.close(lock)

    def close(self) -> None:
        """Let go of it. A file that was made for the step is overwritten before, so that a secret is not left on the
        disk, where that can be; one with further links is not, as these lead to what the step made."""
        if self.mount is not None and self.mount.kind == "file" and os.fstat(self._descriptor).st_nlink <= 1:
            with suppress(OSError), open(os.open(self._files, os.O_WRONLY | os.O_CLOEXEC), "wb") as file:
                file.write(bytes(os.fstat(file.fileno()).st_size))
                file.flush()
                os.fdatasync(file.fileno())
        os.close(self._descriptor)


def lock_source(source: str, mode: int) -> int:
    """Lock the directory that holds a mount's source, with flock(2), among steps in chroots: while it is copied, or
    written to. A descriptor that holds the lock."""
    descriptor = os.open(os.path.dirname(source), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(descriptor, mode)
    return descriptor


def _apply(copy: str, before: dict[str, State], after: dict[str, State], target: str) -> None:
    """Change `target` as its copy was changed. Links in it lead nowhere, whoever put them there meanwhile."""
    for path in sorted(before, reverse=True):
        if path not in after and _is_directory(target, os.path.dirname(path)):
            remove_tree(target + path)
    directories = []
    for path in sorted(after):
        if after[path] == before.get(path):
            continue
        mode = after[path][1]
        if stat.S_ISDIR(mode):
            _make_directories(target, path)
            directories.append(path)
        elif not stat.S_ISSOCK(mode):
            _make_directories(target, os.path.dirname(path))
            _replace(copy + path, target + path)
    for path in reversed(directories):
        here = f"{copy}{path}/."  # a directory itself, and no link to one
        set_metadata(here, target + path, os.lstat(here))


def _replace(new: str, path: str) -> None:
    """Move a file to its place. One that is linked elsewhere, perhaps in the layer, is copied: who writes to it there
    must not write to it here."""
    status = os.lstat(new)
    if status.st_nlink > 1:
        aside = f"{path}.{os.urandom(6).hex()}"
        copy_file(new, aside, status)
        new = aside
    if os.path.isdir(path) and not os.path.islink(path):
        remove_tree(path)
    os.rename(new, path)


def _is_directory(target: str, path: str) -> bool:
    """Whether a path below `target` is a directory, and so is each above it."""
    parts = [part for part in path.split("/") if part]
    try:
        found = [os.lstat("/".join([target, *parts[:end]])) for end in range(len(parts) + 1)]
    except OSError:
        return False
    return all(stat.S_ISDIR(status.st_mode) for status in found)


def _make_directories(target: str, path: str) -> None:
    """Make a directory below `target` and those above it, in place of whatever else is there."""
    parts = [part for part in path.split("/") if part]
    for end in range(1, len(parts) + 1):
        here = "/".join([target, *parts[:end]])
        if os.path.isdir(here) and not os.path.islink(here):
            continue
        remove_tree(here)
        os.mkdir(here, 0o755)
