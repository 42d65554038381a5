"""Where a tar stream is cut into blocks that are compressed on their own.

A block ends at a header that is chosen by its own bytes, and at a fixed length where there is none. So where a stream
is cut depends on its bytes alone, and after a file that grew or went away the blocks are soon what they were before.
"""

from __future__ import annotations

import zlib

HEADER = 512  # bytes; every header of a tar archive begins at a multiple of that
_MAGIC = b"ustar\0"
_MAGIC_AT = 257
ONE_IN = 8  # headers are chosen


def cut(data: bytes, start: int, least: int, most: int) -> int:
    """Where the block ends that begins at `start` of tar bytes, as far as `data` tells: at the first chosen header that
    has `least` bytes before it, else at `most` bytes; -1 if neither is there yet. All are multiples of 512."""
    stop = min(start + most, len(data)) - HEADER
    first = start + least
    marks = data[first + _MAGIC_AT : stop + _MAGIC_AT + 1 : HEADER]  # one byte of each possible header
    at = marks.find(_MAGIC[:1])
    while at >= 0:
        header = first + at * HEADER
        if data.startswith(_MAGIC, header + _MAGIC_AT) and _is_chosen(data[header : header + HEADER]):
            return header
        at = marks.find(_MAGIC[:1], at + 1)
    return start + most if len(data) - start >= most else -1


def _is_chosen(header: bytes) -> bool:
    return zlib.crc32(header) % ONE_IN == 0
