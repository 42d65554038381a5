"""SHA-256 of small data, and what a digest looks like.

`hashlib` loads OpenSSL, which takes 4 ms: a rebuild that finds everything in the cache hashes a few kilobytes, and one
of a small step a few hundred, for which the interpreter's own implementation will do. Large files and layers are hashed
with `hashlib`, which is five times faster.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Protocol, cast

_own: Any = __import__("_sha2" if sys.version_info >= (3, 12) else "_sha256")

_MANY = 1 << 62  # bytes, more than there are
_BEGINNING = 1 << 18  # bytes of a stream that are kept until it is known whether more follow
_OWN_SHARE = 1 << 19  # bytes that are hashed in 1.6 ms, and by OpenSSL in 0.3
_spent = 0  # bytes of it so far
_openssl: Any = None  # hashlib.sha256, once it is loaded
_HEXADECIMAL = frozenset("0123456789abcdef")


def is_hex(text: str, digits: int) -> bool:
    """Whether a text is as many hexadecimal digits, in lower case, as digests and random names have them."""
    return len(text) == digits and _HEXADECIMAL.issuperset(text)


def is_sha256(text: str) -> bool:
    """Whether a text is a digest or a diff ID of the one algorithm that is written here."""
    return text.startswith("sha256:") and is_hex(text[7:], 64)


class Hasher(Protocol):
    """What takes bytes in pieces and has a digest in the end."""

    def update(self, data: bytes, /) -> object: ...

    def digest(self) -> bytes: ...

    def hexdigest(self) -> str: ...


def sha256(data: bytes = b"", more: int = 0) -> Hasher:
    """A hasher that has taken `data` and will take about `more` bytes. It is OpenSSL's as soon as all that this process
    hashes is worth loading it."""
    global _openssl, _spent
    if _openssl is None:
        _spent += len(data) + more
        if _spent <= _OWN_SHARE:
            return cast("Hasher", _own.sha256(data))
        import hashlib

        _openssl = hashlib.sha256
    return cast("Hasher", _openssl(data))


class StreamHasher:
    """Hashes what nobody knows the length of, as `sha256` would if it were told."""

    def __init__(self) -> None:
        self._hasher: Hasher | None = None
        self._pieces: list[bytes] = []
        self._size = 0

    def update(self, data: bytes) -> None:
        if self._hasher is not None:
            self._hasher.update(data)
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _BEGINNING:
            self._hasher = sha256(b"".join(self._pieces), _MANY)
            self._pieces.clear()

    def hexdigest(self) -> str:
        return (self._hasher or sha256(b"".join(self._pieces))).hexdigest()


def hex_of(data: bytes, *, after: bytes = b"") -> str:
    """The SHA-256 of `data`, as it stands `after` something short: 64 hexadecimal digits."""
    hasher = sha256(after, len(data))
    hasher.update(data)
    return hasher.hexdigest()


def chain_id(diff_ids: Iterable[str]) -> str:
    """What names a stack of layers, lowest first (image-spec, "Layer ChainID"); '' for none."""
    chain = ""
    for diff_id in diff_ids:
        chain = "sha256:" + hex_of(f"{chain} {diff_id}".encode()) if chain else diff_id
    return chain
