"""Image contents as files: `type=local` writes a directory, `type=tar` one flat archive, both without configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from builder.errors import BuilderError, StoreError
from builder.filesystem.diff import write_changes
from builder.filesystem.squash import squash
from builder.filesystem.tar import TarWriter
from builder.filesystem.unpack import unpack
from builder.store.store import Store


def write_tar(store: Store, layers: Sequence[str], write: Callable[[bytes], object]) -> None:
    """The flattened file system of a stack of layers (diff IDs, lowest first) as a tar stream."""
    writer = TarWriter(write)
    write_changes(squash(store.layers.directories(layers)), writer)
    writer.close()


def write_directory(store: Store, layers: Sequence[str], destination: str) -> None:
    """The flattened file system in `destination`, on top of what is there. Owners are kept where the system allows."""
    with store.scratch() as scratch:
        path = os.path.join(scratch, "files.tar")
        try:
            with open(path, "xb") as file:
                write_tar(store, layers, file.write)
            os.makedirs(destination, exist_ok=True)
            with open(path, "rb") as file:
                unpack(file, destination, layer=False)
        except BuilderError:
            raise
        except OSError as error:
            raise StoreError(f"cannot write the files: {error.strerror}", place=destination) from error
