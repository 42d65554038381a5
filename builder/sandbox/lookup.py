"""Where a path leads inside a root, and what is missing of it: the plan of the mount points that a step needs.

The merged layers are looked at through descriptors, name by name and without following links, so that nothing outside
can be reached. Missing parts are planned: either as real directories (`kept`, made in the upper directory) or as a
stub that exists for this step only.
"""

from __future__ import annotations

import os
import stat

from . import syscalls
from .command import SandboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST_LINKS = 40
_STUB_MODE = 0o1000
"""That of a file in the stub layer below all others, by which it is known: one of an image hardly has it."""


def make_directories(root: int, path: str, owner: tuple[int, int] | None = None) -> None:
    """Make what is missing of the directory `path` in a root, links followed, with mode 755 and an owner (uid, gid).
    Raises OSError."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for end in range(1, len(parts) + 1):
        try:
            os.close(syscalls.open_in_root(root, "/".join(parts[:end])))
        except FileNotFoundError:
            parent = syscalls.open_in_root(root, "/".join(parts[: end - 1]))
            try:
                os.mkdir(parts[end - 1], 0o755, dir_fd=parent)
                if owner is not None:
                    os.chown(parts[end - 1], *owner, dir_fd=parent)
            finally:
                os.close(parent)


class Plan:
    """Missing paths, in the order in which they must be made. `root` is a descriptor of the merged layers.

    `stubs` maps a path to whether it is a directory; `kept` maps directories that stay to their parent (its path, and
    its descriptor if it exists); `parents` maps a path that exists and has a stub in it to its descriptor; `mounted`
    are the targets so far, below which nothing is planned; `stubbed` are files that `put_below` made.
    """

    def __init__(self, root: int) -> None:
        self.root = root
        self.stubs: dict[str, bool] = {}
        self.kept: dict[str, tuple[str, int | None]] = {}
        self.parents: dict[str, int] = {}
        self.mounted: set[str] = set()
        self.stubbed: list[str] = []
        self._opened: list[int] = []

    def close(self) -> None:
        """Let go of all that was looked at, but the root."""
        for descriptor in self._opened:
            os.close(descriptor)
        self._opened.clear()

    def add(self, path: str, *, directory: bool, kept: bool = False) -> str:
        """Plan what is missing of `path`; the result is its path without links, down to an earlier mount."""
        found: list[tuple[str, int | None]] = [("/", self.root)]
        todo = path.split("/")[::-1]
        links = 0
        while todo:
            name = todo.pop()
            if name in ("", "."):
                continue
            if name == "..":
                if len(found) > 1:
                    found.pop()
                continue
            parent, descriptor = found[-1]
            here = f"{parent.rstrip('/')}/{name}"
            below = [part for part in todo[::-1] if part not in ("", ".")]
            if here in self.mounted and below:
                return "/".join([here, *below])
            if here in self.stubs or here in self.kept:
                found.append((here, None))
                continue
            entry = self._open(descriptor, name, path)
            if entry is None:
                self._plan(here, found[-1], directory or bool(below), kept)
                found.append((here, None))
                continue
            mode = os.fstat(entry).st_mode
            if stat.S_ISLNK(mode):
                links += 1
                if links > _MOST_LINKS:
                    raise SandboxError(f"{path}: too many symbolic links")
                target = os.readlink("", dir_fd=entry)
                os.close(entry)
                if target.startswith("/"):
                    del found[1:]
                todo.extend(target.split("/")[::-1])
            else:
                if mode == stat.S_IFREG | _STUB_MODE:
                    self.stubbed.append(here)
                self._opened.append(entry)
                found.append((here, entry))
        return found[-1][0]

    def _open(self, directory: int | None, name: str, path: str) -> int | None:
        if directory is None:
            return None
        try:
            return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise SandboxError(f"{path}: what leads there is not a directory in the image") from None

    def _plan(self, here: str, parent: tuple[str, int | None], directory: bool, kept: bool) -> None:
        if kept:
            self.kept[here] = parent
            return
        where, descriptor = parent
        if descriptor is not None:
            self.parents[where] = descriptor
        elif where in self.kept and where not in self.stubs:
            self._plan(where, self.kept[where], True, False)
        self.stubs[here] = directory


def put_below(stub: int, paths: Iterable[str]) -> None:
    """Fill the directory `stub`, to be the lowest layer of all, with files at `paths`: what the image has there, or on
    the way there, hides them."""
    for path in paths:
        make_directories(stub, os.path.dirname(path))
        os.close(os.open(path[1:], os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, _STUB_MODE, dir_fd=stub))


def build_stub(plan: Plan, stub: int) -> None:
    """Fill the directory `stub`, to be the topmost lower layer, with the planned mount points.

    Directories that exist already are repeated with their owner, mode, times and attributes, since overlayfs takes
    those from the topmost layer that has the directory.
    """
    repeated: dict[str, int] = {}
    for where, descriptor in plan.parents.items():
        parts = where.strip("/").split("/") if where != "/" else []
        for end in range(1, len(parts) + 1):
            path = "/".join(parts[:end])
            if path not in repeated:
                above = os.open(path, os.O_PATH | os.O_CLOEXEC, dir_fd=plan.root) if end < len(parts) else descriptor
                repeated[path] = above
                os.mkdir(path, 0o700, dir_fd=stub)
    for path, directory in plan.stubs.items():
        if directory:
            os.mkdir(path[1:], 0o755, dir_fd=stub)
        else:
            os.close(os.open(path[1:], os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=stub))
    for path in sorted(repeated, reverse=True):
        _copy_metadata(repeated[path], stub, path)


def _copy_metadata(source: int, stub: int, path: str) -> None:
    status = os.fstat(source)
    source_path = f"/proc/self/fd/{source}"
    target_path = f"/proc/self/fd/{stub}/{path}"
    os.chown(path, status.st_uid, status.st_gid, dir_fd=stub)
    os.chmod(path, stat.S_IMODE(status.st_mode), dir_fd=stub)
    for name in os.listxattr(source_path):
        if not name.startswith(("trusted.overlay.", "user.overlay.")):
            try:
                os.setxattr(target_path, name, os.getxattr(source_path, name))
            except OSError:
                continue  # the memory file system has no such attributes: the directory loses it for this step
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=stub)
