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

_SECOND = 1_000_000_000


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one image: the flattened file system of its `layers` (diff IDs, lowest first), and what goes
    `beside` it, files by name, at the end and in place of the image's own of that name. In a tar they lie `below` a
    directory.
    """

    layers: Sequence[str]
    beside: Mapping[str, bytes] = {}
    below: str = ""


def write_tar(
    store: Store, images: Sequence[Files], write: Callable[[bytes], object], *, epoch: int | None = None
) -> None:
    """The files of images as a tar stream. The time of what goes beside them is `epoch`, or now."""
    writer = TarWriter(write)
    for files in images:
        _write(writer, files, entries(store, files.layers), epoch)
    writer.close()


def write_directory(store: Store, files: Files, destination: str, *, epoch: int | None = None) -> None:
    """The files of an image in `destination`, on top of what is there. All of it belongs to this process, as in
    BuildKit (syncTargetDiffCopy)."""
    with store.scratch() as scratch:
        path = os.path.join(scratch, "files.tar")
        try:
            with open(path, "xb") as file:
                writer = TarWriter(file.write)
                _write(writer, files, _as_own(entries(store, files.layers)), epoch)
                writer.close()
            os.makedirs(destination, exist_ok=True)
            with open(path, "rb") as file:
                unpack(file, destination, layer=False)
        except BuilderError:
            raise
        except OSError as error:
            raise StoreError(f"cannot write the files: {error.strerror}", place=destination) from error


def refuse_overlap(store: Store, images: Mapping[str, Sequence[str]]) -> None:
    """Raises StoreError if two images, layers by platform, have a file at the same place; directories may be the same.
    BuildKit refuses that, too."""
    owners: dict[str, str] = {}
    for platform, layers in images.items():
        for entry in entries(store, layers):
            if entry.info.kind != kinds.DIRECTORY and owners.setdefault(entry.path, platform) != platform:
                raise StoreError(
                    f"the images for {owners[entry.path]} and {platform} both have it, and go to one directory",
                    place=f"/{entry.path}",
                    remedy="leave out platform-split=false",
                )


def entries(store: Store, layers: Sequence[str]) -> Iterator[Change]:
    """The flattened file system of layers."""
    return squash(store.unpacked.directories(layers))


def _write(writer: TarWriter, files: Files, changes: Iterable[Change], epoch: int | None) -> None:
    if files.below:
        moment = 0 if epoch is None else epoch * _SECOND
        writer.add(files.below, FileInfo(kinds.DIRECTORY, 0o755, mtime_ns=moment))
        changes = _moved(changes, f"{files.below}/")
    write_changes(changes, writer)
    moment = time.time_ns() if epoch is None else epoch * _SECOND
    for name, data in files.beside.items():
        path = f"{files.below}/{name}" if files.below else name
        writer.add(path, FileInfo(kinds.FILE, 0o600, size=len(data), mtime_ns=moment), content=data)


def _moved(changes: Iterable[Change], prefix: str) -> Iterator[Change]:
    for entry in changes:
        entry.path = prefix + entry.path
        entry.hardlink = prefix + entry.hardlink if entry.hardlink is not None else None
        yield entry


def _as_own(changes: Iterable[Change]) -> Iterator[Change]:
    """The entries as files of this process. Where that changes a file's user or group its setuid or setgid bit goes, as
    `cp` does it: nobody may run as the caller what was to run as another."""
    uid, gid = os.getuid(), os.getgid()
    for entry in changes:
        info = entry.info
        mode = info.mode
        if info.kind == kinds.FILE:
            mode &= ~((info.uid != uid and stat.S_ISUID) | (info.gid != gid and stat.S_ISGID))
        if (info.uid, info.gid, info.mode) != (uid, gid, mode):
            entry.info = msgspec.structs.replace(info, uid=uid, gid=gid, mode=mode)
        yield entry
