"""Files that outputs are written to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Self

import msgspec

from builder.errors import StoreError


class WrittenFile(msgspec.Struct, frozen=True):
    """What tells a file from what others write under its name: the same before and after it got that name."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, file: BinaryIO) -> Self:
        """The state of an open file, with what was written to it so far."""
        if file.writable():
            file.flush()
        status = os.fstat(file.fileno())
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@contextmanager
def destination(path: str) -> Iterator[BinaryIO]:
    """A file that appears under its name when it is complete; `-` is standard output.

    A pipe, a device or a link (`/dev/stdout` is one) is written to as it is: none must be replaced. Raises StoreError.
    """
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    special = os.path.islink(path) or (os.path.exists(path) and not os.path.isfile(path))
    # A name of its own, since one with more behind it can be too long.
    temporary = path if special else os.path.join(os.path.dirname(path), f".builder-{os.urandom(4).hex()}.part")
    made = False
    try:
        with open(temporary, "wb" if special else "xb") as file:  # where others may write, they may have left a link
            made = not special
            yield file
        if made:
            os.replace(temporary, path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        remedy = f"make the directory {os.path.dirname(path)} first" if missing else None
        raise StoreError(f"cannot write: {error.strerror}", place=path, remedy=remedy) from error
    finally:
        if made and os.path.exists(temporary):
            os.unlink(temporary)
