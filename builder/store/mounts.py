"""Cache mounts on the disk, each a directory of ROOT/mounts:

NAME/id      the id that `RUN --mount=type=cache` gives, or its target
NAME/lock    held by whoever uses the mount (flock: shared, or alone); its time is when that last was
NAME/data/   what the steps see

NAME covers the id and what the mount starts from, so that one id may have several. NAME.1, NAME.2… are further copies
that steps with `sharing=private` made while another had the mount. The lease of a build that used one names it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from builder.errors import StoreError, store_error
from builder.filesystem import kinds
from builder.oci.digests import is_hex
from builder.store.leases import held
from builder.store.store import Store, remove_tree

if TYPE_CHECKING:
    from builder.config import ArchiveLimits
    from builder.filesystem.diff import Change
    from builder.filesystem.readable import Readable
    from builder.filesystem.tar import TarWriter

_SHORTEST = 4  # digits of a name that may stand for it


def is_name(text: str) -> bool:
    """Whether a text can be the name of a mount's directory."""
    name, dot, number = text.partition(".")
    return is_hex(name, 32) and (not dot or (number.isascii() and number.isdigit()))


class NoSuchMount(StoreError):
    """No cache mount has this id or name."""


class StoredMount(msgspec.Struct, frozen=True):
    """A cache mount. `id` is '' for one that an older version made; `used` is when a step last began to use it, in
    seconds since the epoch."""

    name: str
    id: str
    path: str
    used: float

    @property
    def data(self) -> str:
        return os.path.join(self.path, "data")

    @property
    def pin(self) -> str:
        return pin_of(self.name)


# --- using


def pin_of(name: str) -> str:
    """What the lease of a build says that uses a mount: it stays between two steps of the build, too."""
    return f"mount {name}"


def hold(path: str, mode: int) -> int:
    """Lock a mount's directory, made if it is not there, as flock(2) does with `mode`. Returns the descriptor that
    holds the lock. Raises BlockingIOError with LOCK_NB where another holds it, and StoreError for a link: a step that
    root runs in the store of another user would write elsewhere."""
    if any(os.path.islink(part) for part in (path, os.path.join(path, "data"))):
        raise StoreError("this cache mount is a link", place=path, remedy="remove it")
    while True:
        os.makedirs(path, exist_ok=True)
        lock = os.path.join(path, "lock")
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # somebody removed the mount between the two
        try:
            fcntl.flock(descriptor, mode)
            if _is_still(descriptor, lock):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # it was removed while we waited


def _is_still(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def note_use(path: str, mount_id: str) -> None:
    """Note that a step uses the mount now, and under which id. Its lock must be held."""
    os.utime(os.path.join(path, "lock"))
    file = os.path.join(path, "id")
    if not os.path.exists(file):
        _write_id(file, mount_id)


def _write_id(path: str, mount_id: str) -> None:
    new = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    with open(new, "xb") as file:
        file.write(mount_id.encode("utf-8", "surrogateescape"))
    os.rename(new, path)


# --- finding


def stored_mounts(store: Store) -> list[StoredMount]:
    """All cache mounts that hold something, by id and name."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(store.mounts):
            path = os.path.join(store.mounts, name)
            if is_name(name) and os.path.isdir(os.path.join(path, "data")):
                found.append(StoredMount(name, _read_id(path), path, _used(path)))
    return sorted(found, key=lambda mount: (mount.id, mount.name))


def find_mounts(store: Store, text: str) -> list[StoredMount]:
    """The mounts that have this id, or whose name begins with it (four digits at least). Raises NoSuchMount."""
    everything = stored_mounts(store)
    found = [mount for mount in everything if mount.id == text]
    if not found and len(text) >= _SHORTEST:
        found = [mount for mount in everything if mount.name.startswith(text)]
    if not found:
        raise NoSuchMount(f"no such cache mount: {text}", remedy="'builder cache ls' lists what there is")
    return found


def _read_id(path: str) -> str:
    try:
        with open(os.path.join(path, "id"), "rb") as file:
            return file.read(4096).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""


def _used(path: str) -> float:
    try:
        return os.stat(os.path.join(path, "lock")).st_mtime
    except FileNotFoundError:
        return time.time()


def is_in_use(mount: StoredMount) -> bool:
    """Whether a step has the mount at this moment, or it is none of ours. Writes nothing."""
    try:
        descriptor = os.open(os.path.join(mount.path, "lock"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def unused_mounts(store: Store) -> list[StoredMount]:
    """The mounts that no running build uses: none of its steps now, nor one before. Raises StoreError."""
    pins = held(store.leases)
    return [mount for mount in stored_mounts(store) if mount.pin not in pins and not is_in_use(mount)]


def is_unchanged(mount: StoredMount) -> bool:
    """Whether no step had the mount since it was looked at, or has it now."""
    return not is_in_use(mount) and _used(mount.path) == mount.used


@contextmanager
def alone(mount: StoredMount, *, wait: bool) -> Iterator[None]:
    """Keep steps from the mount. Raises StoreError if one has it and we do not `wait` for its end."""
    try:
        descriptor = hold(mount.path, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise StoreError(
            f"the cache mount {mount.id or mount.name} is in use", remedy="wait for the build that uses it"
        ) from None
    try:
        yield
    finally:
        os.close(descriptor)


# --- removing


def remove_mount(store: Store, mount: StoredMount) -> None:
    """Remove a mount with all it holds. Raises StoreError if a step has it."""
    aside = os.path.join(store.temporary, f"gone.{os.urandom(6).hex()}")
    with alone(mount, wait=False):
        os.rename(mount.path, aside)
    remove_tree(aside)


def remove_unused(store: Store, mounts: Iterable[StoredMount]) -> list[tuple[StoredMount, int]]:
    """Remove mounts, except those that a step has, or had since they were looked at: those that went, and their bytes.
    Raises StoreError."""
    from builder.store.collect import tree_size

    removed = []
    for mount in mounts:
        aside = os.path.join(store.temporary, f"gone.{os.urandom(6).hex()}")
        try:
            descriptor = hold(mount.path, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                if _used(mount.path) != mount.used:
                    continue
                os.rename(mount.path, aside)
            finally:
                os.close(descriptor)
            removed.append((mount, tree_size(aside)))
            remove_tree(aside)
        except BlockingIOError:
            continue
        except OSError as error:
            raise store_error("cannot remove a cache mount", error, error.filename or mount.path) from error
    return removed


# --- as archives


def write_mount(mount: StoredMount, writer: TarWriter, prefix: str = "") -> None:
    """Write what a mount holds as entries of a tar, below `prefix`. Waits until no step has the mount.

    Times are whole seconds; of extended attributes the file capabilities are kept, sockets and device 0/0 are not.
    Equal content gives equal bytes. Raises LayerError, OSError.
    """
    from builder.filesystem.diff import changes, write_changes
    from builder.filesystem.tree import FileInfo

    with alone(mount, wait=True):
        root = os.stat(mount.data)
        writer.add(
            prefix or ".",
            FileInfo(kinds.DIRECTORY, root.st_mode & 0o7777, root.st_uid, root.st_gid, 0, root.st_mtime_ns),
        )
        write_changes(_below(prefix, changes(mount.data, None)), writer)


def _below(prefix: str, entries: Iterator[Change]) -> Iterator[Change]:
    for entry in entries:
        if entry.info.kind in (kinds.WHITEOUT, kinds.OPAQUE):
            continue
        if prefix:
            entry.path = f"{prefix}/{entry.path}"
            if entry.hardlink is not None:
                entry.hardlink = f"{prefix}/{entry.hardlink}"
        yield entry


def read_mount(stream: Readable, into: str, limits: ArchiveLimits) -> None:
    """Unpack what `write_mount` wrote, compressed or not, into a new directory. Raises LayerError."""
    from builder.filesystem.decompress import decompressor
    from builder.filesystem.unpack import unpack

    os.mkdir(into)
    unpack(decompressor(stream, limits=limits), into, layer=False, max_entries=limits.entries or None)


def adopt_mount(store: Store, name: str, mount_id: str, data: str) -> bool:
    """Make a directory of the store's file system the data of a mount, unless there is one. Whether it did. `name` must
    be a mount's (see `is_name`)."""
    path = os.path.join(store.mounts, name)
    descriptor = hold(path, fcntl.LOCK_EX)
    try:
        if os.path.isdir(os.path.join(path, "data")):
            return False
        note_use(path, mount_id)
        os.rename(data, os.path.join(path, "data"))
        return True
    finally:
        os.close(descriptor)
