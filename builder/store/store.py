"""One store: an OCI image layout with its snapshots, its cache database and its temporary files below one directory.

ROOT/oci-layout, index.json, blobs/    the images, readable for every OCI tool
ROOT/snapshots/                        unpacked layers, a cache
ROOT/snapshots-…/                      the same, of other kinds of processes, see `snapshot_directories`
ROOT/cache.db                          step cache, fingerprints, parsed Dockerfiles
ROOT/mounts/                           cache mounts
ROOT/leases/                           what running builds use
ROOT/builds/                           records and logs of past builds
ROOT/repeats/                          what commands said that may be repeated, see `api.repeat`, and were given
ROOT/failed/                           steps that failed, for `builder debug`
ROOT/partial/                          beginnings of blobs whose transfer was cut short
ROOT/quarantine/                       what `fsck` found unreadable
ROOT/locks                             locks of steps
ROOT/reserve                           room on the disk, see `room`
ROOT/tmp/                              unfinished files, locks
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from builder.config import ArchiveLimits
from builder.errors import StoreError, store_error
from builder.filesystem.locks import LockTable, exclusive
from builder.oci.layout import Layout
from builder.store.images import Images
from builder.store.janitor import Janitor
from builder.store.locks import take_share
from builder.store.rights import secure
from builder.store.room import keep_room

if TYPE_CHECKING:
    from builder.filesystem.snapshots import Snapshots
    from builder.store.builds import Builds
    from builder.store.database import Database
    from builder.store.layers import Layers
    from builder.store.scratch import StepScratches
    from builder.store.unpacked import UnpackedLayers

_FLUSHED_AFTER = 3600.0  # seconds


class Store:
    """The store below `root`, made on first use. Raises StoreError when it cannot be.

    `limits` says what archives and layers may hold that come into it; it is asked when the first one is read.
    """

    _share = -1  # the descriptor by which others know that the store is used

    def __init__(self, root: str, limits: Callable[[], ArchiveLimits] = ArchiveLimits) -> None:
        self.root = os.path.abspath(root)
        self._limits = limits
        self.temporary = os.path.join(self.root, "tmp")
        self.mounts = os.path.join(self.root, "mounts")
        self.leases = os.path.join(self.root, "leases")
        self.partial = os.path.join(self.root, "partial")
        self.step_locks = LockTable(os.path.join(self.root, "locks"))
        self._janitor = Janitor(remove_tree)
        self._database: Database | None = None
        self._opening = threading.Lock()
        self._enter()
        self.layout = Layout(self.root, self.temporary)
        self.layout.settle = self._settle
        self.layout.create()
        self.images = Images(self.layout)

    def _enter(self) -> None:
        """Be known as a user of this store; remove what killed ones left behind, if there is no other."""
        try:
            secure(self.root)
            if not os.path.isdir(self.temporary):
                self._make_temporary()
            share, leftovers = take_share(self.temporary)
        except OSError:
            return  # a store that may only be read, or a file system without locks: there is nothing to be removed
        self._share = share
        for path in leftovers:
            with contextlib.suppress(OSError):  # a dying step may still write there; the next one comes for the rest
                remove_tree(path)
        if leftovers:
            with contextlib.suppress(OSError):
                self.snapshots.entries.sweep()

    def _make_temporary(self) -> None:
        """Make the directory in which nearly all files begin, also those that stay: away from where an earlier store
        was removed."""
        from builder.filesystem.placement import make_apart

        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not os.path.isdir(self.temporary):
                make_apart(self.temporary, 0o755)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of the store, which can then no longer be used."""
        closing = []
        if self._database is not None:  # SQLite waits for the disk
            closing.append(self._database.close)
        if "snapshots" in self.__dict__ and self.snapshots.mounted:  # the kernel forgets each file that was looked at
            closing.append(self.snapshots.close)
        threads = [threading.Thread(target=close, name="close", daemon=True) for close in closing]
        for thread in threads:
            thread.start()
        self._janitor.finish()
        for thread in threads:
            thread.join()
        self._leave()

    def _leave(self) -> None:
        """Be no user of the store any more. One that nobody closed ends so as well."""
        share, self._share = self._share, -1
        if share >= 0:
            os.close(share)

    __del__ = _leave

    def _settle(self) -> None:
        if self._database is not None:  # otherwise nothing was found or made that is not named already
            self.layers.settle()

    @property
    def database(self) -> Database:
        """What the store remembers, opened when it is first asked."""
        with self._opening:
            if self._database is None:
                from builder.store.database import Database

                self._database = Database(os.path.join(self.root, "cache.db"))
            return self._database

    @cached_property
    def builds(self) -> Builds:
        from builder.store.builds import Builds

        return Builds(self.root, self.temporary)

    @cached_property
    def snapshots(self) -> Snapshots:
        """Those of this process."""
        from builder.store.snapshot_directories import own_snapshots

        found = own_snapshots(self.root)
        found.shells = self._janitor.spares(lambda: found.entries.make_shell(self.temporary)).take
        return found

    def all_snapshots(self) -> list[Snapshots]:
        """Those of this process, and those that others with other privileges made."""
        from builder.filesystem.snapshots import Snapshots
        from builder.store.snapshot_directories import snapshot_names

        others = [Snapshots(self.root, name=name) for name in snapshot_names(self.root)]
        return [self.snapshots, *(one for one in others if one.entries.directory != self.snapshots.entries.directory)]

    def set_snapshots_aside(self, keep: Collection[str]) -> list[str]:
        """As `SnapshotEntries.set_aside`, of all kinds. What root unpacked in a user's store stays, if we are the user.
        Raises OSError."""
        aside = []
        for snapshots in self.all_snapshots():
            try:
                aside += snapshots.entries.set_aside(keep)
            except PermissionError:
                if snapshots is self.snapshots:
                    raise
        return aside

    def settle_snapshots(self, waiting: float = 0.0) -> None:
        """Flush unpacked layers to the disk, see `SnapshotEntries.settle`. What cannot be flushed is not believed
        after a restart of the machine, which does no harm."""
        with contextlib.suppress(OSError):
            for snapshots in self.all_snapshots():
                snapshots.entries.settle(waiting)

    def _working_snapshots(self) -> Snapshots:
        """The snapshots for a process that unpacks layers or looks into them.

        Once an hour such a process also flushes what earlier ones unpacked, beside its work: by then the kernel has
        written most of it anyway. Nobody waits for that, and a rebuild in which nothing changed does not come here.
        """
        threading.Thread(target=self.settle_snapshots, args=(_FLUSHED_AFTER,), name="settle", daemon=True).start()
        return self.snapshots

    @cached_property
    def limits(self) -> ArchiveLimits:
        return self._limits()

    @cached_property
    def layers(self) -> Layers:
        from builder.store.layers import Layers

        return Layers(self.layout, lambda: self.database, self.partial, lambda: self.limits)

    @property
    def grew(self) -> bool:
        """Whether layers were written or fetched through this object."""
        return "layers" in self.__dict__ and self.layers.wrote

    @cached_property
    def unpacked(self) -> UnpackedLayers:
        from builder.store.unpacked import UnpackedLayers

        return UnpackedLayers(self.layers, self.layout, self._working_snapshots, self.partial, lambda: self.limits)

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Keep from collections whatever is used through this store within the block, also what is written and has no
        name yet. Every command that writes, or that reads blobs after finding them, works under a lease.

        A store on a read-only file system has none: there are no collections to keep from.
        """
        from builder.store.leases import Lease

        try:
            lease = Lease(self.leases)
        except StoreError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EROFS:
                yield
                return
            raise
        self._forget_paths()
        before, self.layout.pin = self.layout.pin, lease.pin
        try:
            yield
        finally:
            self.layout.pin = before
            self._forget_paths()
            lease.release()
            keep_room(self.root)

    def _forget_paths(self) -> None:
        if "unpacked" in self.__dict__:
            self.unpacked.forget_paths()

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """A private directory below tmp/, removed at the end. Raises StoreError."""
        path = self._scratch_path()
        try:
            os.mkdir(path, 0o700)
        except OSError as error:
            raise store_error("cannot make a temporary directory", error, path) from error
        try:
            yield path
        finally:
            remove_tree(path)

    @cached_property
    def step_scratches(self) -> StepScratches:
        """Those of steps."""
        from builder.store.scratch import StepScratches

        return StepScratches(self._scratch_path, self._janitor)

    def _scratch_path(self) -> str:
        return os.path.join(self.temporary, f"work.{os.getpid()}.{os.urandom(6).hex()}")

    def catch_up(self) -> None:
        """Do what others would wait for later. For whoever only waits."""
        self._janitor.catch_up()

    @contextmanager
    def lock(self, name: str) -> Iterator[bool]:
        """An exclusive lock between threads and processes. Yields whether it had to be waited for."""
        with exclusive(os.path.join(self.temporary, f"{name}.lock")) as waited:
            yield waited


def remove_tree(path: str) -> None:
    """`rm -rf`: also of what an overlay leaves behind, whose directories may have no permissions."""
    try:
        os.rmdir(path)
        return
    except OSError:
        from builder.filesystem import syscalls  # only where there is something to remove

    syscalls.remove_tree(path)
