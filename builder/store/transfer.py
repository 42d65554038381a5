"""A blob on its way into the store, and whether it holds the layer that somebody says it does."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from builder.errors import LayerError, store_error
from builder.filesystem.compression import SUFFIXES, Compression, kind_of
from builder.oci.spec import OCI_LAYER
from builder.progress import Check
from builder.store.records import LayerRecord

if TYPE_CHECKING:
    from builder.config import ArchiveLimits
    from builder.filesystem.compress import LayerBlob
    from builder.filesystem.decompress import Reader
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


def check_content(record: LayerRecord, path: str, source: str, limits: ArchiveLimits) -> Reader:
    """Read a file with a blob's bytes to its end, by the stream that is returned. Raises LayerError unless it is the
    layer that `source` says it is."""
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
    return stream


def as_read(layout: Layout, record: LayerRecord, stream: Reader) -> LayerRecord:
    """A form of a layer as it is, whatever was said of its compression and its size: `stream` read all of it."""
    media_type, size = record.media_type, record.size
    if kind_of(media_type) != stream.compression and stream.compression in SUFFIXES:
        media_type = OCI_LAYER + SUFFIXES[stream.compression]
    with suppress(OSError):  # not in its place yet: a fetch compares the size
        size = os.stat(layout.blob_path(record.digest)).st_size
    return msgspec.structs.replace(record, media_type=media_type, size=size, uncompressed=stream.total)


def compress_form(
    layout: Layout, record: LayerRecord, compression: Compression, check: Check
) -> tuple[LayerBlob, Reader]:
    """A layer compressed anew, and the stream that read it. Raises LayerError unless the blob holds that layer."""
    from builder.filesystem.compress import LayerSink
    from builder.filesystem.decompress import decompressor

    with LayerSink(layout.temporary, compression=compression.kind, level=compression.level, sync=False) as sink:
        stream = decompressor(layout.open(record.digest), check=check)
        while piece := stream.read(1 << 20):
            sink.write(piece)
        blob = sink.finish()
    if blob.diff_id != record.diff_id:
        os.unlink(blob.path)
        raise LayerError(
            f"layer {record.diff_id} is damaged or forged: the content of {record.digest} is {blob.diff_id}",
            place=layout.path,
            remedy="run 'builder fsck'",
        )
    return blob, stream
