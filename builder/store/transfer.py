"""A blob on its way into the store, and whether it holds the layer that somebody says it does."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from builder.errors import LayerError, store_error
from builder.store.records import LayerRecord

if TYPE_CHECKING:
    from builder.config import ArchiveLimits
    from builder.oci.layout import Layout


def fetch_blob(
    layout: Layout, partial: str, digest: str, write: Callable[[BinaryIO], object], check: Callable[[str], object]
) -> None:
    """Have `write` fetch a blob, from where a transfer that was cut short left off; what is fetched of it is kept then,
    in `partial`. It comes into the store when `check`, which is given its path, raises nothing."""
    path = os.path.join(partial, digest.partition(":")[2])
    complete = False
    try:
        os.makedirs(partial, mode=0o700, exist_ok=True)
        with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "r+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        check(path)
        layout.adopt(path, digest)
        complete = True
    except LayerError:
        os.unlink(path)
        raise
    except OSError as error:
        with suppress(OSError):  # a disk that is full needs the space more than the next call needs the beginning
            os.unlink(path)
        raise store_error(f"cannot store blob {digest}", error, layout.path) from error
    finally:
        if not complete:
            with suppress(OSError):
                if not os.path.getsize(path):
                    os.unlink(path)


def check_content(record: LayerRecord, path: str, source: str, limits: ArchiveLimits) -> int:
    """The uncompressed size of the layer in a file with a blob's bytes. Raises LayerError unless it is the layer that
    `source` says it is."""
    import hashlib

    from builder.filesystem.decompress import decompressor

    hasher = hashlib.sha256()
    with open(path, "rb") as file:
        stream = decompressor(file, limits=limits, place=record.digest)
        while piece := stream.read(1 << 20):
            hasher.update(piece)
    if f"sha256:{hasher.hexdigest()}" != record.diff_id:
        raise LayerError(
            f"{source} gives blob {record.digest} as layer {record.diff_id}, but its"
            f" content is sha256:{hasher.hexdigest()}"
        )
    return stream.total
