"""The state of steps that failed, kept so that one can look at it afterwards.

ROOT/failed/TIME-BUILD-PROJECT/state     what is known of the step
ROOT/failed/TIME-BUILD-PROJECT/upper/    what its command wrote, in overlayfs's form

TIME is when it was kept, in milliseconds as 12 hexadecimal digits; BUILD the name of its build, which keeps one step at
most; PROJECT tells builds of another Dockerfile or context apart. Kept are the newest `KEPT`; the next build of the
same project that ends well removes them, and so does `builder prune`. One that somebody looks at is not removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from builder.errors import StoreError, UsageError
from builder.store.store import Store, remove_tree

KEPT = 5

_STATE, _UPPER = "state", "upper"


class FailedStates:
    """The states that a store keeps."""

    def __init__(self, store: Store) -> None:
        self._path = os.path.join(store.root, "failed")
        self._temporary = store.temporary

    def builds(self) -> list[str]:
        """The names of builds of which a step is kept, the newest first."""
        return [name.split("-")[1] for name in self._names()]

    def keep(self, build: str, project: str, state: bytes, upper: str) -> None:
        """Keep a state; the directory `upper` is taken over. Raises StoreError."""
        name = f"{int(time.time() * 1000):012x}-{build}-{_project(project)}"
        new = os.path.join(self._temporary, f"failed.{build}")
        try:
            os.makedirs(self._path, mode=0o700, exist_ok=True)
            os.mkdir(new, 0o700)
            os.rename(upper, os.path.join(new, _UPPER))
            with open(os.open(os.path.join(new, _STATE), os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.write(state)
            os.rename(new, os.path.join(self._path, name))
        except OSError as error:
            raise StoreError(f"cannot be kept: {error.strerror}", place=self._path) from error
        self._remove(self._names()[KEPT:])

    @contextmanager
    def hold(self, build: str = "") -> Iterator[tuple[str, bytes, str]]:
        """The newest state, or that of a build by the beginning of its name: the build, the state, the directory with
        what was written. It is not removed meanwhile. Raises StoreError, UsageError."""
        found = [name for name in self._names() if name.split("-")[1].startswith(build)]
        if not found:
            what = f"no failed step of build {build!r} is kept" if build else "no failed step is kept"
            raise StoreError(what, place=self._path, remedy="build with --on-error=keep")
        if build and len(found) > 1:
            raise UsageError(f"{build!r} means several builds", remedy="give more digits")
        path = os.path.join(self._path, found[0])
        try:
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(directory, fcntl.LOCK_SH)
                with open(os.path.join(path, _STATE), "rb") as file:
                    state = file.read()
                yield found[0].split("-")[1], state, os.path.join(path, _UPPER)
            finally:
                os.close(directory)
        except FileNotFoundError as error:
            raise StoreError("the failed step was removed just now", place=path) from error

    def forget(self, project: str) -> None:
        """Remove the states of a project."""
        mark = _project(project)
        self._remove([name for name in self._names() if name.endswith(f"-{mark}")])

    def forget_build(self, build: str) -> None:
        """Remove the state of a build."""
        self._remove([name for name in self._names() if name.split("-")[1] == build])

    def clear(self) -> None:
        """Remove all states."""
        self._remove(self._names())

    def _names(self) -> list[str]:
        try:
            names = os.listdir(self._path)
        except OSError:
            return []
        return sorted((name for name in names if name.count("-") == 2), reverse=True)

    def _remove(self, names: list[str]) -> None:
        """What cannot be removed stays for the next time."""
        for name in names:
            path = os.path.join(self._path, name)
            with contextlib.suppress(OSError):
                directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    aside = os.path.join(self._temporary, f"gone.{os.urandom(6).hex()}")
                    os.rename(path, aside)
                finally:
                    os.close(directory)
                remove_tree(aside)


def _project(project: str) -> str:
    return hashlib.sha256(project.encode("utf-8", "surrogateescape")).hexdigest()[:12]
