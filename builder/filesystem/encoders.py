"""What compresses one block of a layer, in each format, and what the result depends on."""

from __future__ import annotations

from collections.abc import Callable

from builder.errors import Unsupported
from builder.filesystem.cuts import ONE_IN

DEFAULT_LEVELS = {"gzip": 2, "zstd": 3, "uncompressed": 0}
BLOCKS = {"gzip": 1 << 20, "zstd": 2 << 20, "uncompressed": 1 << 20}
"""Bytes of a tar stream that are compressed on their own."""
LEAST = 512 << 10
"""Bytes in a block that ends before a chosen header."""

Encoder = Callable[[bytes], bytes]


def encoder(compression: str, level: int | None) -> Encoder:
    """A function that compresses one block on its own; may be called from several threads. Raises Unsupported."""
    if compression not in DEFAULT_LEVELS:
        known = ", ".join(DEFAULT_LEVELS)
        raise Unsupported(f"layers cannot be compressed with {compression!r}", remedy=f"use one of {known}")
    chosen = DEFAULT_LEVELS[compression] if level is None else level
    if compression == "gzip":
        return _gzip_encoder(chosen)
    if compression == "zstd":
        return _zstd_encoder(chosen)
    return bytes


def _gzip_encoder(level: int) -> Encoder:
    """igzip's levels are 0 to 3; from 4 to 9 zlib does it: slowly, and smaller."""
    if not 0 <= level <= 9:
        raise Unsupported(f"gzip has no compression level {level}", remedy="use 0 to 9")
    from isal import isal_zlib

    if level > 3:
        import zlib

        def deflate(block: bytes) -> bytes:
            compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
            return compressor.compress(block) + compressor.flush(zlib.Z_SYNC_FLUSH)

        return deflate

    def encode(block: bytes) -> bytes:
        compressor = isal_zlib.compressobj(level, isal_zlib.DEFLATED, -15)
        compressed: bytes = compressor.compress(block)
        return compressed + compressor.flush(isal_zlib.Z_SYNC_FLUSH)

    return encode


def _zstd_encoder(level: int) -> Encoder:
    import threading

    import zstandard

    if not 1 <= level <= zstandard.MAX_COMPRESSION_LEVEL:
        raise Unsupported(
            f"zstd has no compression level {level}", remedy=f"use 1 to {zstandard.MAX_COMPRESSION_LEVEL}"
        )
    local = threading.local()  # a compressor must not be shared between threads

    def encode(block: bytes) -> bytes:
        compressor = getattr(local, "compressor", None)
        if compressor is None:
            compressor = local.compressor = zstandard.ZstdCompressor(level=level)
        compressed: bytes = compressor.compress(block)
        return compressed

    return encode


def gzip_coding(level: int | None) -> str:
    """What a block of gzip depends on beside its content: where streams are cut, the level, and who compresses."""
    chosen = DEFAULT_LEVELS["gzip"] if level is None else level
    blocks = f"gzip {LEAST}-{BLOCKS['gzip']} one in {ONE_IN}, {chosen}"
    if chosen <= 3:
        import isal

        return f"{blocks} isal {isal.__version__}"
    import zlib

    return f"{blocks} zlib {zlib.ZLIB_RUNTIME_VERSION}"


def crc32(compression: str) -> Callable[[bytes, int], int] | None:
    """The checksum that the format wants of the uncompressed bytes, if any (igzip's runs at 7 GB/s)."""
    if compression != "gzip":
        return None
    from isal import isal_zlib

    function: Callable[[bytes, int], int] = isal_zlib.crc32
    return function
