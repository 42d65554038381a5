"""The state of steps that failed, kept so that one can look at it afterwards.

ROOT/failed/TIME-BUILD-PROJECT/state     what is known of the step
ROOT/failed/TIME-BUILD-PROJECT/upper/    what its command wrote, in overlayfs's form
ROOT/failed/TIME-BUILD-PROJECT/upper-…/  the same, of other kinds of processes, see `snapshot_directories`

TIME is when it was kept, in milliseconds as 12 hexadecimal digits; BUILD the name of its build, which keeps one step at
most; PROJECT tells builds of another Dockerfile or context apart. Kept are the newest `KEPT`; the next build of the
same project that ends well removes them, and so does `builder prune`. One that somebody looks at is not removed. None
of it is flushed to the disk: after a power failure one may be broken, and `builder fsck` removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from builder.errors import StoreError, UsageError
from builder.store.store import remove_tree

KEPT = 5

_STATE, _UPPER = "state", "upper"
_NAME = re.compile("[0-9a-f]{12}-[0-9a-f]+-[0-9a-f]{12}")


class Cleared(msgspec.Struct, frozen=True):
    """What was removed: how many states, and the bytes of their files."""

    count: int
    size: int


class FailedStates:
    """The states that a store keeps, in the directory `path`."""

    def __init__(self, root: str, temporary: str) -> None:
        """`root` is the store's directory, `temporary` its directory for unfinished files."""
        self.path = os.path.join(root, "failed")
        self._temporary = temporary

    def builds(self) -> list[str]:
        """The names of builds of which a step is kept, the newest first."""
        return [name.split("-")[1] for name in self.names()]

    def keep(self, build: str, project: str, state: bytes, upper: str) -> None:
        """Keep a state; the directory `upper` is taken over. Raises StoreError."""
        name = f"{int(time.time() * 1000):012x}-{build}-{_project(project)}"
        new = os.path.join(self._temporary, f"failed.{build}")
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            os.mkdir(new, 0o700)
            os.rename(upper, os.path.join(new, _own_upper()))
            with open(os.open(os.path.join(new, _STATE), os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(state)
            os.rename(new, os.path.join(self.path, name))
        except OSError as error:
            raise StoreError(f"cannot be kept: {error.strerror}", place=self.path) from error
        self.remove(self.names()[KEPT:])

    @contextmanager
    def hold(self, build: str = "") -> Iterator[tuple[str, bytes, str]]:
        """The newest state, or that of a build by the beginning of its name: the build, the state, the directory with
        what was written. It is not removed meanwhile. Raises StoreError, UsageError."""
        found = [name for name in self.names() if name.split("-")[1].startswith(build)]
        if not found:
            what = f"no failed step of build {build!r} is kept" if build else "no failed step is kept"
            raise StoreError(what, place=self.path, remedy="build with --on-error=keep")
        if build and len(found) > 1:
            raise UsageError(f"{build!r} means several builds", remedy="give more digits")
        path = os.path.join(self.path, found[0])
        with contextlib.ExitStack() as held:
            try:
                directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                held.callback(os.close, directory)
                fcntl.flock(directory, fcntl.LOCK_SH)
                with open(os.path.join(path, _STATE), "rb") as file:
                    state = file.read()
            except FileNotFoundError as error:
                raise StoreError("the failed step was removed just now", place=path) from error
            except OSError as error:
                raise StoreError(f"the state of the step cannot be read: {error.strerror}", place=path) from error
            upper = os.path.join(path, _own_upper())
            if not os.path.isdir(upper):  # what it says is deleted would be there
                raise StoreError(
                    "a process with other privileges kept the failed step",
                    place=path,
                    remedy="look at it as who built it: as root or not, and in the same container",
                )
            yield found[0].split("-")[1], state, upper

    def forget(self, project: str) -> None:
        """Remove the states of a project."""
        mark = _project(project)
        self.remove([name for name in self.names() if name.endswith(f"-{mark}")])

    def forget_build(self, build: str) -> None:
        """Remove the state of a build."""
        self.remove([name for name in self.names() if name.split("-")[1] == build])

    def clear(self, before: float | None = None) -> Cleared:
        """Remove all states, or those that were kept `before` (seconds since the epoch)."""
        return self.remove([name for name in self.names() if before is None or int(name[:12], 16) < before * 1000])

    def names(self) -> list[str]:
        """The directories of states, the newest first."""
        try:
            names = os.listdir(self.path)
        except OSError:
            return []
        return sorted(filter(_NAME.fullmatch, names), reverse=True)

    def is_whole(self, name: str) -> bool:
        """Whether a state, given by its directory, can be read and has the files of its step."""
        try:
            with open(os.path.join(self.path, name, _STATE), "rb") as file:
                msgspec.msgpack.decode(file.read())
            with os.scandir(os.path.join(self.path, name)) as entries:
                return any(one.name.startswith(_UPPER) and one.is_dir(follow_symlinks=False) for one in entries)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return False

    def remove(self, names: list[str]) -> Cleared:
        """Remove states, given by their directories. What is in use, or cannot be removed, stays for the next time."""
        count = size = 0
        for name in names:
            path = os.path.join(self.path, name)
            with contextlib.suppress(OSError):
                directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    aside = os.path.join(self._temporary, f"gone.{os.urandom(6).hex()}")
                    os.rename(path, aside)
                finally:
                    os.close(directory)
                count += 1
                size += _size(aside)
                remove_tree(aside)
        return Cleared(count, size)


def _size(path: str) -> int:
    from builder.store.collect import tree_size  # only where there is something to remove

    return tree_size(path)


def _own_upper() -> str:
    """What this kind of process calls the directory with what a command wrote."""
    from builder.store.snapshot_directories import PRIVILEGED, own_name

    return _UPPER + own_name().removeprefix(PRIVILEGED)


def _project(project: str) -> str:
    return hashlib.sha256(project.encode("utf-8", "surrogateescape")).hexdigest()[:12]
