"""A file system in memory on which a step's root is set up."""

from __future__ import annotations

import os

from . import syscalls
from .command import SandboxError

# Where the scratch file system may be mounted, in the step's own mount namespace: something that every host has. What
# the first two hold is never a source of a step, so that there the scratch file system can be made ahead.
_HARMLESS_POINTS = ("/dev/pts", "/dev/mqueue")
_SCRATCH_POINTS = ("/tmp", "/run", "/var", "/mnt")


class Scratch:
    """A private file system in memory for stubs, generated files and mount points; gone once the root is entered.

    `point` is the directory of the host that it covers.
    """

    def __init__(self, point: str) -> None:
        syscalls.mount("scratch", point, "tmpfs", syscalls.MS_NOSUID, "mode=0700", "mount scratch tmpfs")
        self.descriptor = os.open(point, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._count = 0
        self.empty = self.directory("empty", 0o755)

    def path(self, name: str) -> str:
        """A path that leads to `name` in here wherever the working directory is."""
        return f"/proc/self/fd/{self.descriptor}/{name}"

    def directory(self, name: str = "", mode: int = 0o755) -> int:
        """Make a directory and open it; without a name, one that nobody else uses."""
        name = name or self.name()
        os.mkdir(name, mode, dir_fd=self.descriptor)
        return self.open(name)

    def open(self, name: str) -> int:
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.descriptor)

    def name(self) -> str:
        self._count += 1
        return f"m{self._count}"

    def file(self, content: bytes, mode: int, uid: int, gid: int) -> int:
        """A file with this content, opened as a path."""
        name = self.name()
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=self.descriptor)
        with open(descriptor, "wb") as file:
            file.write(content)
            os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
        return self.open(name)


def harmless_point() -> str | None:
    """A directory that a scratch file system may cover before the sources are known, if this host has one."""
    return next((path for path in _HARMLESS_POINTS if os.path.isdir(path)), None)


def scratch_point() -> str:
    """A directory that a scratch file system may cover once the sources are open."""
    point = next((path for path in _SCRATCH_POINTS if os.path.isdir(path)), None)
    if point is None:
        raise SandboxError(f"the host has none of {', '.join(_SCRATCH_POINTS)} to set up a root on")
    return point
