"""Bodies of answers over HTTP, of servers that nobody need trust."""

from __future__ import annotations

import time
from collections.abc import Iterator

LEAST = 1
"""Bytes a second, over a minute or what else is waited for a server that is silent: git is told the same."""
_DECODERS = ("gzip", "zstd")
_REFUSED = ("deflate", "br", "compress")
_PIECE = 64 << 10


class TooSlow(Exception):
    """A server sends next to nothing, so that it is never silent for long."""


class Undecodable(Exception):
    """A body is encoded in a way that was not asked for and is not read, or it is damaged."""


def paced(chunks: Iterator[bytes], window: float) -> Iterator[bytes]:
    """The same pieces. Raises TooSlow where waiting for `window` seconds brought fewer than LEAST bytes a second; the
    time that whoever takes the pieces needs does not count."""
    waited, size = 0.0, 0
    while True:
        began = time.monotonic()
        chunk = next(chunks, None)
        waited += time.monotonic() - began
        if chunk is None:
            return
        size += len(chunk)
        if waited >= window:
            if size < LEAST * waited:
                raise TooSlow(f"{size} bytes came in {waited:.0f} s")
            waited, size = 0.0, 0
        yield chunk


def decoded(chunks: Iterator[bytes], codings: str) -> Iterator[bytes]:
    """The body that came as `chunks`, with what its `Content-Encoding` says, in pieces of bounded size.

    None was asked for (`Accept-Encoding: identity`), and some proxies encode all the same. One coding is taken off;
    several, of which each would multiply what one byte becomes, are refused. Those that are names for the file's own
    form (`x-gzip` with Apache, `aws-chunked` with S3) stay. Raises Undecodable.
    """
    named = [coding.strip() for coding in codings.lower().split(",")]
    named = [coding for coding in named if coding in _DECODERS or coding in _REFUSED]
    if not named:
        return chunks
    if len(named) > 1 or named[0] in _REFUSED:
        raise Undecodable(f"the answer is encoded as {codings[:100]!r}, which was not asked for")
    return _decompressed(chunks, named[0])


def _decompressed(chunks: Iterator[bytes], compression: str) -> Iterator[bytes]:
    from builder.config import ArchiveLimits
    from builder.errors import LayerError
    from builder.filesystem.decompress import Reader
    from builder.progress import unchecked

    start = next(chunks, b"")
    if not start:  # an answer to HEAD says how it would be encoded
        return
    reader = Reader(_Pieces(chunks), start, compression, ArchiveLimits(), None, unchecked)
    while True:
        try:
            piece = reader.read1(_PIECE)
        except LayerError as error:
            raise Undecodable(error.cause) from error
        if not piece:
            return
        yield piece


class _Pieces:
    """Pieces that arrive, to be read as a file is; the pieces' own size counts."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        piece = self._rest or next(self._pieces, b"")
        if size < 0:
            return piece + b"".join(self._pieces)
        self._rest = piece[size:]
        return piece[:size]
