"""Reading compressed layers and archives, in bounded memory.

Formats are known by their first bytes, never by a name or a media type alone: registries do serve layers whose media
type lies. Several gzip members, zstd frames, bzip2 or xz streams in a row are one stream, and zero bytes after the
last are padding. A stream that ends in the middle is an error, not an end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from builder.config import ArchiveLimits
from builder.errors import LayerError, Unsupported
from builder.filesystem.readable import Readable
from builder.progress import Check, unchecked

_INPUT = 128 << 10
# One zstd block of 4 bytes can hold 128 KiB, and the library gives all output at once: this bounds a bomb to 32 MiB.
_ZSTD_INPUT = 1 << 10
_ZSTD_WINDOW = 128 << 20
_MAGICS = (
    (b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"),
)  # fmt: skip
_SKIPPABLE = b"\x2a\x4d\x18"  # bytes 1 to 3 of a zstd skippable frame, with which eStargz-like blobs may begin


class Decompressor(Protocol):
    """What bz2, lzma and igzip have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Zstd:
    """zstandard's decompressor in the shape of the others; `max_length` is not kept to (see `_ZSTD_INPUT`)."""

    needs_input = True

    def __init__(self) -> None:
        import zstandard

        self._object = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()

    @property
    def eof(self) -> bool:
        return bool(self._object.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._object.unused_data)

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return bytes(self._object.decompress(data))


def sniff(start: bytes) -> str:
    """The compression that a stream's first 6 bytes tell: `gzip`, `zstd`, `bzip2`, `xz`, or `uncompressed`."""
    for magic, name in _MAGICS:
        if start.startswith(magic):
            return name
    return "zstd" if start[1:4] == _SKIPPABLE and 0x50 <= start[0] <= 0x5F else "uncompressed"


def decompressor(
    stream: Readable,
    media_type: str | None = None,
    *,
    limits: ArchiveLimits | None = None,
    place: str | None = None,
    check: Check = unchecked,
) -> Reader:
    """The uncompressed bytes of `stream`, whatever its compression.

    `media_type` is only checked: encrypted layers are refused by it with Unsupported. `limits` bound the uncompressed
    size and its ratio to what was read; `place` is what errors call the stream; `check` is called with each piece.
    Reading raises LayerError for damaged, truncated or too large data.
    """
    if media_type is not None and media_type.endswith("+encrypted"):
        raise Unsupported(f"encrypted layers ({media_type}) cannot be read", place=place)
    start = b""
    while len(start) < 6 and (more := stream.read(6 - len(start))):
        start += more
    return Reader(stream, start, sniff(start), limits, place, check)


def _factory(compression: str) -> tuple[Callable[[], Decompressor], tuple[type[Exception], ...], int]:
    """How to make a decompressor, what it raises, and how much input it is given at once."""
    if compression == "gzip":
        from isal import igzip_lib

        damaged: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # the stubs take it for an instance
        return (lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)), (damaged, EOFError), _INPUT
    if compression == "zstd":
        import zstandard

        return _Zstd, (zstandard.ZstdError,), _ZSTD_INPUT
    if compression == "bzip2":
        import bz2

        return bz2.BZ2Decompressor, (OSError, ValueError), _INPUT
    import lzma

    return (lambda: lzma.LZMADecompressor(memlimit=512 << 20)), (lzma.LZMAError,), _INPUT


class Reader:
    """A readable binary stream of uncompressed bytes; `compression` says what the source was."""

    def __init__(
        self,
        stream: Readable,
        start: bytes,
        compression: str,
        limits: ArchiveLimits | None,
        place: str | None,
        check: Check,
    ) -> None:
        self.compression = compression
        self.total = 0
        self._stream = stream
        self._input = start
        self._limits = limits or ArchiveLimits(0, 0, 0)
        self._consumed = len(start)
        self._place = place
        self._check = check
        self._ready = b""
        self._position = 0
        self._finished = False
        self._current: Decompressor | None = None
        self._errors: tuple[type[Exception], ...] = ()
        self._step = _INPUT
        if compression != "uncompressed":
            self._make, self._errors, self._step = _factory(compression)
            self._current = self._make()

    def close(self) -> None:
        """Close the source, if it can be closed."""
        close = getattr(self._stream, "close", None)
        if close is not None:
            close()

    def give_up(self) -> None:
        """Have a source that waits for what is still to come wait no longer."""
        give_up = getattr(self._stream, "give_up", None)
        if give_up is not None:
            give_up()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, and exactly so many unless the stream ends; all of it when negative."""
        return self._gather(size, size)

    def read1(self, size: int) -> bytes:
        """At most `size` bytes, and at least a quarter unless the stream ends: what a decompressor gives at once is
        seldom copied then."""
        return self._gather(size, (size + 3) // 4)

    def _gather(self, size: int, enough: int) -> bytes:
        parts: list[bytes] = []
        wanted = size
        while wanted < 0 or size - wanted < enough:
            if self._position >= len(self._ready):
                self._ready, self._position = self._more(wanted), 0
                if not self._ready:
                    break
            piece = self._ready if wanted < 0 else self._ready[self._position : self._position + wanted]
            if wanted < 0 and self._position:
                piece = self._ready[self._position :]
            self._position += len(piece)
            if wanted > 0:
                wanted -= len(piece)
            parts.append(piece)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _more(self, wanted: int) -> bytes:
        """The next uncompressed bytes; b"" at the end."""
        data = self._plain(wanted) if self.compression == "uncompressed" else self._decompress(wanted)
        self.total += len(data)
        limits = self._limits
        if limits.size and self.total > limits.size:
            raise LayerError(
                f"uncompressed it has more than the {limits.size} bytes that are allowed",
                place=self._place,
                remedy=limits.remedy("size"),
            )
        if limits.ratio and self.total > limits.GRACE and self.total > self._consumed * limits.ratio:
            raise LayerError(
                f"it looks like a compression bomb: {self._consumed} bytes became more than {self.total}",
                place=self._place,
                remedy=limits.remedy("ratio"),
            )
        return data

    def _plain(self, wanted: int) -> bytes:
        if self._input:
            data, self._input = self._input, b""
            return data
        return self._take(wanted if wanted > 0 else 1 << 20)

    def _take(self, size: int) -> bytes:
        self._check()
        data = self._stream.read(size)
        self._consumed += len(data)
        return data

    def _decompress(self, wanted: int) -> bytes:
        most = wanted if wanted > 0 else 1 << 20
        while not self._finished:
            current = self._current
            if current is None or current.eof:
                if not self._next_member(current):
                    return b""
                continue
            data = b""
            if current.needs_input:
                data = self._fill()
                if not data:
                    raise LayerError(f"the {self.compression} stream is truncated", place=self._place)
            try:
                output = current.decompress(data, most)
            except self._errors as error:
                raise LayerError(f"the {self.compression} stream is damaged: {error}", place=self._place) from error
            if output:
                return output
        return b""

    def _fill(self) -> bytes:
        """The next compressed bytes, at most `_step`."""
        if not self._input:
            return self._take(self._step)
        data, self._input = self._input[: self._step], self._input[self._step :]
        return data

    def _next_member(self, ended: Decompressor | None) -> bool:
        """Go on to the next member, if there is one."""
        rest = (ended.unused_data if ended is not None else b"") + self._input
        self._input = b""
        self._current = None
        while not (rest := rest.lstrip(b"\0")):
            if not (rest := self._take(_INPUT)):
                self._finished = True
                return False
        self._input = rest
        self._current = self._make()
        return True
