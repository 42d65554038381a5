"""Cache mounts as one archive: a tar, compressed with zstd, with a directory NAME for each mount that holds `id` and
`data/` as in the store. Any tool can read it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from builder.errors import LayerError, StoreError
from builder.filesystem import kinds
from builder.store.mounts import (
    StoredMount,
    adopt_mount,
    is_name,
    read_mount,
    remove_mount,
    stored_mounts,
    write_mount,
)
from builder.store.store import Store

if TYPE_CHECKING:
    from builder.filesystem.readable import Readable

_LONGEST_ID = 4096  # bytes


class ImportedMount(msgspec.Struct, frozen=True):
    """A mount that was in an archive. `kept` says that one of that name was there and was left as it is."""

    name: str
    id: str
    kept: bool


def write_mounts(mounts: Sequence[StoredMount], file: BinaryIO) -> None:
    """Write mounts as one archive. Waits for each until no step has it. Raises StoreError."""
    import zstandard

    from builder.filesystem.tar import TarWriter
    from builder.filesystem.tree import FileInfo

    try:
        with zstandard.ZstdCompressor().stream_writer(file, closefd=False) as stream:
            writer = TarWriter(stream.write)
            for mount in mounts:
                name = mount.id.encode("utf-8", "surrogateescape")
                used_ns = int(mount.used) * 1_000_000_000
                writer.add(mount.name, FileInfo(kinds.DIRECTORY, 0o755, mtime_ns=used_ns))
                writer.add(
                    f"{mount.name}/id", FileInfo(kinds.FILE, 0o644, size=len(name), mtime_ns=used_ns), content=name
                )
                write_mount(mount, writer, f"{mount.name}/data")
            writer.close()
    except OSError as error:
        raise StoreError(f"cannot write the cache mounts: {error.strerror}", place=error.filename) from error


def read_mounts(store: Store, stream: Readable, *, replace: bool = False) -> list[ImportedMount]:
    """Take over the mounts of an archive, nothing of one that is damaged. A mount that is there stays as it is, unless
    it is to be replaced. Raises StoreError, LayerError."""
    with store.scratch() as scratch:
        files = os.path.join(scratch, "mounts")
        read_mount(stream, files, store.limits)
        found = [(name, _id(files, name)) for name in sorted(os.listdir(files))]
        if not found:
            raise LayerError("holds no cache mounts")
        imported = []
        existing = {mount.name: mount for mount in stored_mounts(store)}
        for name, mount_id in found:
            if replace and name in existing:
                remove_mount(store, existing[name])
            adopted = adopt_mount(store, name, mount_id, os.path.join(files, name, "data"))
            imported.append(ImportedMount(name, mount_id, kept=not adopted))
    return imported


def _id(files: str, name: str) -> str:
    """The id of an unpacked mount. What is no mount at all raises LayerError."""
    path = os.path.join(files, name)
    if not is_name(name) or os.path.islink(path) or not _is_directory(os.path.join(path, "data")):
        raise LayerError("is no archive of cache mounts", place=name, remedy="'builder cache export' writes one")
    try:
        with open(os.open(os.path.join(path, "id"), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            data = file.read(_LONGEST_ID + 1)
    except OSError as error:
        raise LayerError(f"the cache mount has no id: {error.strerror}", place=name) from error
    if len(data) > _LONGEST_ID:
        raise LayerError("the cache mount's id is too long", place=name)
    return data.decode("utf-8", "surrogateescape")


def _is_directory(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)
