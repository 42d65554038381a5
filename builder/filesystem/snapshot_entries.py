"""The directories that snapshots are kept in, by name: complete from the moment that they have it, until they are gone.

`<hex>` is a layer's diff ID, or `<hex>-<key>` that of a layer over a certain stack; `tmp-<hex>` one that is being made,
`gone-<random>` one that has been removed or has no name yet. Since a snapshot is not flushed to the disk (that would
cost seconds), it carries the boot in which it was made, in the file `boot`, until `settle`: after a restart of the
machine one that may have holes is not believed. The file `lock` has a lock for each name, and no snapshot waits to be
flushed for longer than that file's time says.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator

from builder.boot import current_boot
from builder.errors import StoreError
from builder.filesystem.locks import LockTable, Wait
from builder.filesystem.syscalls import remove_tree, syncfs
from builder.oci.digests import is_hex, is_sha256

DIRECTORY, EROFS = "fs", "layer.erofs"  # a complete one has either
_TEMPORARY = "tmp-"
_GONE = "gone-"
_BOOT = "boot"
_LOCK = "lock"


class SnapshotEntries:
    """The entries of one directory. Any number of threads and processes may use it."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._boot = ""

    def path(self, name: str) -> str:
        """Where the entry of a name is, if there is one."""
        return f"{self.directory}/{name}"

    def complete(self, name: str) -> bool:
        """Whether a snapshot is there, and was flushed or made since the last boot."""
        directory = self.path(name)
        try:
            descriptor = os.open(f"{directory}/{_BOOT}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return os.path.isdir(f"{directory}/{DIRECTORY}") or os.path.exists(f"{directory}/{EROFS}")
        try:
            return os.read(descriptor, 64).decode("ascii", "replace") == self._current_boot()
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def making(self, diff_id: str, wait: Wait | None = None) -> Iterator[str]:
        """The name of a layer's snapshot, while nobody else makes or removes it; `wait` waits until then."""
        name = hex_of(diff_id)
        with self._locks().exclusive(name, wait):
            yield name

    @contextlib.contextmanager
    def temporary(self, name: str) -> Iterator[str]:
        """A directory to make a snapshot in, for who is `making` it."""
        path = self.path(_TEMPORARY + name)
        remove_tree(path)
        os.mkdir(path, 0o700)
        try:
            yield path
        finally:
            remove_tree(path)  # renamed by now, if all went well

    def make_shell(self, directory: str) -> str:
        """Make what only lacks its files to be a snapshot, in a directory on the same file system. Raises OSError."""
        os.makedirs(self.directory, exist_ok=True)
        shell = f"{directory}/{_GONE}{os.urandom(8).hex()}"  # what `sweep` removes, if it is the snapshots' own
        os.mkdir(shell, 0o700)
        self._mark_boot(shell)
        return shell

    def keep(self, temporary: str, name: str) -> None:
        """Make a finished `temporary` directory the snapshot of a name."""
        self._mark_boot(temporary)
        self.place(temporary, name)

    def place(self, shell: str, name: str) -> None:
        """Make a shell that has got its files the snapshot of a name. Whatever has the name is not worth keeping."""
        self._discard(name)
        os.rename(shell, self.path(name))

    def remove(self, diff_id: str) -> None:
        """Remove all snapshots of a layer; nothing happens if there is none. Nobody may be using them."""
        with self.making(diff_id) as name:
            for entry in self._names():
                if entry == name or entry.startswith(f"{name}-"):
                    self._discard(entry)

    def set_aside(self, keep: Collection[str]) -> list[str]:
        """Take away all snapshots of layers that are not in `keep` (diff IDs). Returns the directories to be removed,
        which have other names now. Nobody may be using them, or begin to."""
        aside = []
        for name in self._names():
            if is_snapshot(name) and f"sha256:{name[:64]}" not in keep:
                gone = f"{self.directory}/{_GONE}{os.urandom(8).hex()}"
                os.rename(self.path(name), gone)
                aside.append(gone)
        return aside

    def diff_ids(self, among: Collection[str] | None = None) -> list[str]:
        """The layers that have a complete snapshot, sorted; `among` some of them."""
        asked = None if among is None else {hex_of(diff_id) for diff_id in among}
        names = {
            name[:64]
            for name in self._names()
            if len(name) >= 64 and (asked is None or name[:64] in asked) and self.complete(name)
        }
        return sorted(f"sha256:{name}" for name in names if is_hex(name, 64))

    def settle(self, waiting: float = 0) -> bool:
        """Flush the snapshots to the disk, so that they are believed after a restart too, once one of them has waited
        for that for as many seconds. Whether it was done. Takes as long as the disk needs for all that was written
        lately to its file system. Raises OSError."""
        began = time.time()
        if began - waiting < self._waiting_since() <= began:
            return False  # nor need anybody look at each of thousands
        marks = {name: status for name in self._names() if (status := self._mark(name)) is not None}
        oldest = min((status.st_mtime for status in marks.values()), default=began)
        if not marks or oldest > began - waiting:
            self._wait_since(oldest)
            return False
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(descriptor)
        finally:
            os.close(descriptor)
        for name, status in marks.items():
            with self._locks().exclusive_or_not(name[:64]) as held:
                now = self._mark(name) if held else None
                if now is not None and os.path.samestat(now, status):  # it is still the one that was flushed
                    os.unlink(f"{self.directory}/{name}/{_BOOT}")
        self._wait_since(began)
        return True

    def _waiting_since(self) -> float:
        """A time before which nothing was made that waits to be flushed."""
        try:
            return os.stat(self.path(_LOCK)).st_mtime
        except FileNotFoundError:  # nothing was made at all
            return 0

    def _wait_since(self, moment: float) -> None:
        with contextlib.suppress(OSError):  # then somebody looks once more
            os.utime(self.path(_LOCK), (moment, moment))

    def _mark(self, name: str) -> os.stat_result | None:
        """The file that says that a snapshot was made since the last boot and was not flushed; None if there is none,
        or if it was made before."""
        try:
            status = os.stat(f"{self.directory}/{name}/{_BOOT}")
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status if is_snapshot(name) and self.complete(name) else None

    def sweep(self) -> None:
        """Remove what killed processes left behind."""
        for name in self._names():
            self.sweep_one(name)

    def sweep_one(self, name: str) -> bool:
        """Remove an entry of `directory` that a killed process left. Whether that was done: not if it is anything else,
        or if its owner is at work."""
        if name.startswith(_GONE):
            remove_tree(self.path(name))  # which somebody else may be doing, too
            return True
        if not name.startswith(_TEMPORARY):
            return False
        with self._locks().exclusive_or_not(name[len(_TEMPORARY) :]) as held:
            if held:
                remove_tree(self.path(name))
            return held

    def _discard(self, name: str) -> None:
        """Remove a snapshot, in one step for whoever looks."""
        gone = f"{self.directory}/{_GONE}{os.urandom(8).hex()}"
        try:
            os.rename(self.path(name), gone)
        except FileNotFoundError:
            return
        remove_tree(gone)

    def _mark_boot(self, directory: str) -> None:
        write_new(f"{directory}/{_BOOT}", self._current_boot())

    def _current_boot(self) -> str:
        if not self._boot:
            self._boot = current_boot()
        return self._boot

    def _locks(self) -> LockTable:
        os.makedirs(self.directory, exist_ok=True)
        return LockTable(self.path(_LOCK))

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.directory)
        except FileNotFoundError:
            return []


def hex_of(diff_id: str) -> str:
    """The name of a diff ID here. Raises StoreError."""
    if not is_sha256(diff_id):
        raise StoreError("this is no diff ID", place=diff_id, remedy="layers are named sha256:<64 hexadecimal digits>")
    return diff_id.removeprefix("sha256:")


def is_snapshot(name: str) -> bool:
    """Whether an entry with this name is a snapshot."""
    layer, dash, stack = name.partition("-")
    return is_hex(layer, 64) and (not dash or is_hex(stack, 32))


def write_new(path: str, text: str) -> None:
    """Write a new file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, os.fsencode(text))
    finally:
        os.close(descriptor)
