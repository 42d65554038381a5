"""How a layer is compressed, as data. `compress` does it; this is all that most modules need to know."""

from __future__ import annotations

import msgspec

GZIP, ZSTD, UNCOMPRESSED = "gzip", "zstd", "uncompressed"
KINDS = (GZIP, ZSTD, UNCOMPRESSED)
SUFFIXES = {GZIP: "+gzip", ZSTD: "+zstd", UNCOMPRESSED: ""}
"""Of OCI's media types."""


class Compression(msgspec.Struct, frozen=True):
    """`kind` is gzip, zstd or uncompressed; `level` the format's own, None for its default here."""

    kind: str = GZIP
    level: int | None = None


def kind_of(media_type: str) -> str:
    """The compression that a layer's media type states, OCI's or Docker's."""
    if media_type.endswith(("+gzip", ".gzip")):
        return GZIP
    return ZSTD if media_type.endswith(("+zstd", ".zstd")) else UNCOMPRESSED
