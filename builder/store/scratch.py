"""The directories that steps work in: made, mostly, before they are needed, removed or used again when nobody waits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from builder.errors import store_error
from builder.filesystem.placement import make_apart
from builder.store.janitor import Janitor

_SHORT = 0.25
"""Seconds, of a step. One that takes longer may have made and removed so many files that the next one is better off
elsewhere on the disk (`filesystem.placement`), and making it a place is a small part of that."""


class StepScratches:
    """Private directories, each with the empty directories `upper` and `work` in it, for an overlay. `name` gives the
    path of a new one."""

    def __init__(self, name: Callable[[], str], janitor: Janitor) -> None:
        self._name = name
        self._janitor = janitor
        self._spares = janitor.spares(self._make, self._renew)

    @contextmanager
    def use(self, taken: str = "") -> Iterator[str]:
        """The scratch of a step: made, mostly, while the command of the step before this one ran, and removed while
        that of the next one does (`Janitor.catch_up`). It may be `taken` before. Raises StoreError."""
        path = taken or self.take()
        began = time.monotonic()
        try:
            yield path
        finally:
            if time.monotonic() - began < _SHORT:
                self._spares.give_back(path)
            else:
                self.discard(path)

    def take(self) -> str:
        """Take the scratch of a step that is to come. It is the caller's, until a `use` or `discard`."""
        return self._spares.take()

    def discard(self, path: str) -> None:
        """Have a scratch removed some time, at the latest when the store is closed."""
        self._janitor.discard(path)

    def _make(self) -> str:
        path = self._name()
        try:
            make_apart(path, 0o700)
            for name in ("upper", "work"):
                os.mkdir(os.path.join(path, name))
        except OSError as error:
            raise store_error("cannot make a temporary directory", error, path) from error
        return path

    def _renew(self, path: str) -> None:
        """Make a scratch as new, but for where it is: a directory is not made and removed in a moment."""
        from builder.filesystem import syscalls

        for name in os.listdir(path):
            if name != "work":
                syscalls.remove_tree(os.path.join(path, name))
        syscalls.empty_directory(os.path.join(path, "work"))
        os.mkdir(os.path.join(path, "upper"))
