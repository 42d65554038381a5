"""Streams of bytes, wherever they come from."""

from __future__ import annotations

from typing import Protocol


class Readable(Protocol):
    """What this package reads streams through: `read(n)` gives at most `n` bytes, and b"" only at the end."""

    def read(self, size: int, /) -> bytes: ...
