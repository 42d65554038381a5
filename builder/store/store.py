"""One store: an OCI image layout with its snapshots, its cache database and its temporary files below one directory.

ROOT/oci-layout, index.json, blobs/    the images, readable for every OCI tool
ROOT/snapshots/                        unpacked layers, a cache
ROOT/cache.db                          step cache, fingerprints, parsed Dockerfiles
ROOT/mounts/                           cache mounts
ROOT/tmp/                              unfinished files, locks
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from builder.errors import StoreError
from builder.oci.layout import Layout
from builder.store.database import Database
from builder.store.images import Images
from builder.store.layers import Layers

if TYPE_CHECKING:
    from builder.filesystem.snapshots import Snapshots


class Store:
    """The store below `root`, made on first use. Raises StoreError when it cannot be."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self.temporary = os.path.join(self.root, "tmp")
        self.mounts = os.path.join(self.root, "mounts")
        self.layout = Layout(self.root, self.temporary)
        self.layout.create()
        self.images = Images(self.layout)

    @cached_property
    def database(self) -> Database:
        return Database(os.path.join(self.root, "cache.db"))

    @cached_property
    def snapshots(self) -> Snapshots:
        from pathlib import Path

        from builder.filesystem.snapshots import Snapshots

        return Snapshots(Path(self.root), userxattr=os.geteuid() != 0)

    @cached_property
    def layers(self) -> Layers:
        return Layers(self.layout, self.database, lambda: self.snapshots)

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """A private directory below tmp/, removed at the end."""
        path = os.path.join(self.temporary, f"work.{os.getpid()}.{os.urandom(6).hex()}")
        try:
            os.mkdir(path, 0o700)
        except OSError as error:
            raise StoreError(f"cannot make a temporary directory: {error.strerror}", place=path) from error
        try:
            yield path
        finally:
            remove_tree(path)

    @contextmanager
    def lock(self, name: str) -> Iterator[bool]:
        """An exclusive lock between threads and processes. Yields whether it had to be waited for."""
        path = os.path.join(self.temporary, f"{name}.lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        waited = False
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = True
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield waited
        finally:
            os.close(descriptor)


def remove_tree(path: str) -> None:
    """`rm -rf`: also of what an overlay leaves behind, whose directories may have no permissions."""
    try:
        os.rmdir(path)
        return
    except OSError:
        import shutil  # only where there is something to remove

    shutil.rmtree(path, onerror=_force)


def _force(function: object, path: str, _: object) -> None:
    parent = os.path.dirname(path)
    try:
        os.chmod(parent, 0o700)
        if os.path.isdir(path) and not os.path.islink(path):
            os.chmod(path, 0o700)
            remove_tree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass
