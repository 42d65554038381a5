"""Image contents as files: `type=local` writes a directory, `type=tar` one flat archive, both without configuration.

A directory's files belong to whoever has them written, as with BuildKit, whose client writes them; a tar tells the
image's owners.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from builder.errors import BuilderError, StoreError
from builder.filesystem import kinds
from builder.filesystem.diff import Change, write_changes
from builder.filesystem.squash import squash
from builder.filesystem.tar import TarWriter
from builder.filesystem.tree import FileInfo
from builder.filesystem.unpack import unpack
from builder.store.store import Store


def write_tar(
    store: Store,
    layers: Sequence[str],
    write: Callable[[bytes], object],
    beside: Mapping[str, bytes] | None = None,
    epoch: int | None = None,
) -> None:
    """The flattened file system of a stack of layers (diff IDs, lowest first) as a tar stream. Files of `beside`, by
    name, come at its end, and in place of the image's own of that name; their time is `epoch`, or now."""
    _write_tar(squash(store.unpacked.directories(layers)), write, beside, epoch)


def _write_tar(
    entries: Iterable[Change],
    write: Callable[[bytes], object],
    beside: Mapping[str, bytes] | None,
    epoch: int | None,
) -> None:
    writer = TarWriter(write)
    write_changes(entries, writer)
    moment = time.time_ns() if epoch is None else epoch * 1_000_000_000
    for name, data in (beside or {}).items():
        writer.add(name, FileInfo(kinds.FILE, 0o600, size=len(data), mtime_ns=moment), content=data)
    writer.close()


def write_directory(
    store: Store,
    layers: Sequence[str],
    destination: str,
    beside: Mapping[str, bytes] | None = None,
    epoch: int | None = None,
) -> None:
    """The flattened file system in `destination`, on top of what is there, and what goes `beside` it as in `write_tar`.
    All of it belongs to this process, as in BuildKit (syncTargetDiffCopy)."""
    with store.scratch() as scratch:
        path = os.path.join(scratch, "files.tar")
        try:
            with open(path, "xb") as file:
                _write_tar(_as_own(squash(store.unpacked.directories(layers))), file.write, beside, epoch)
            os.makedirs(destination, exist_ok=True)
            with open(path, "rb") as file:
                unpack(file, destination, layer=False)
        except BuilderError:
            raise
        except OSError as error:
            raise StoreError(f"cannot write the files: {error.strerror}", place=destination) from error


def _as_own(entries: Iterable[Change]) -> Iterator[Change]:
    """The entries as files of this process. Where that changes a file's user or group its setuid or setgid bit goes, as
    `cp` does it: nobody may run as the caller what was to run as another."""
    uid, gid = os.getuid(), os.getgid()
    for entry in entries:
        info = entry.info
        mode = info.mode
        if info.kind == kinds.FILE:
            mode &= ~((info.uid != uid and stat.S_ISUID) | (info.gid != gid and stat.S_ISGID))
        if (info.uid, info.gid, info.mode) != (uid, gid, mode):
            entry.info = msgspec.structs.replace(info, uid=uid, gid=gid, mode=mode)
        yield entry
