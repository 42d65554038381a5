"""Image contents as files: `type=local` writes a directory, `type=tar` one flat archive, both without configuration."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence

from builder.errors import BuilderError, StoreError
from builder.filesystem import kinds
from builder.filesystem.diff import write_changes
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
    writer = TarWriter(write)
    write_changes(squash(store.unpacked.directories(layers)), writer)
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
    Owners are kept where the system allows."""
    with store.scratch() as scratch:
        path = os.path.join(scratch, "files.tar")
        try:
            with open(path, "xb") as file:
                write_tar(store, layers, file.write, beside, epoch)
            os.makedirs(destination, exist_ok=True)
            with open(path, "rb") as file:
                unpack(file, destination, layer=False)
        except BuilderError:
            raise
        except OSError as error:
            raise StoreError(f"cannot write the files: {error.strerror}", place=destination) from error
