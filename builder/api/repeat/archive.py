"""The archive that a repeated build writes again: which bytes of it are blobs of the store, and which are its own.

Standard library only, see the package.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # as type checkers know it; loading `typing` takes longer than all the rest here
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

_LARGEST = 1 << 20  # bytes of an archive's own


def parts_of(file: BinaryIO, blobs: str) -> list[bytes]:
    """What an archive consists of: bytes of its own, the name of a file in `blobs`, bytes, … Raises OSError, and
    ValueError for what is not repeated."""
    import tarfile

    parts: list[bytes] = []
    done = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            members = list(tar)
    except tarfile.TarError as error:
        raise ValueError("no archive") from error
    for member in members:
        name = member.name.removeprefix("blobs/sha256/")
        blob = os.path.join(blobs, name)
        if member.isreg() and name != member.name and os.path.exists(blob):
            if os.path.getsize(blob) != member.size:
                raise ValueError("another blob")
            parts += [_read(file, done, member.offset_data - done), name.encode()]
            done = member.offset_data + member.size
    parts.append(_read(file, done, os.fstat(file.fileno()).st_size - done))
    return parts


def encode(parts: Sequence[bytes], state: bytes) -> bytes:
    """The parts as `decode` reads them, for one state of the build's inputs."""
    return b" ".join([state, *(str(len(part)).encode() for part in parts)]) + b"\n" + b"".join(parts)


def decode(data: bytes, state: bytes) -> list[bytes]:
    """The parts. Raises ValueError if they are of another state, or damaged."""
    head, _, rest = data.partition(b"\n")
    known, *sizes = head.split(b" ")
    parts, done = [], 0
    for size in map(int, sizes):
        parts.append(rest[done : done + size])
        done += size
    if known != state or done != len(rest):
        raise ValueError("not what the archive consists of")
    return parts


def is_ordinary(path: str) -> bool:
    """Whether there is a file at `path`: no pipe, which would be waited for, no device, and no link."""
    return os.path.isfile(path) and not os.path.islink(path)


def write(path: str, parts: Sequence[bytes], blobs: str) -> bool:
    """Write an archive, which appears whole. Whether that was done: not what is no ordinary file. Raises OSError."""
    if os.path.lexists(path) and not is_ordinary(path):
        return False
    temporary = os.path.join(os.path.dirname(path), f".builder-{os.urandom(4).hex()}.part")  # a name can be too long
    whole = open(temporary, "xb", buffering=0)  # noqa: SIM115  # where others may write, they may have left a link
    try:
        with whole as file:
            for place, part in enumerate(parts):
                if place % 2:
                    with open(os.path.join(blobs, part.decode()), "rb", buffering=0) as blob:
                        while os.sendfile(file.fileno(), blob.fileno(), None, 1 << 30):
                            pass
                elif file.write(part) != len(part):
                    return False  # the disk is full, which the whole way says
        os.replace(temporary, path)
        return True
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    if size > _LARGEST:
        raise ValueError("too much that is not in the store")
    file.seek(offset)
    return file.read(size)
