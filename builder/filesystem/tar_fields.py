"""Names, numbers and PAX records as the headers of tar archives hold them."""

from __future__ import annotations

import re
from typing import NoReturn

from builder.errors import LayerError

_DECIMAL = re.compile(rb"([+-]?)(\d{1,18})(?:\.(\d*))?")
_USUAL_NUMBERS = re.compile(rb"([0-7]{7})\0([0-7]{7})\0([0-7]{7})\0([0-7]{11})\0([0-7]{11})\0").match


def usual_numbers(header: bytes) -> tuple[int, int, int, int, int] | None:
    """Mode, uid, gid, size and mtime in one go, as most programs write them; None if any is written otherwise."""
    match = _USUAL_NUMBERS(header, 100)
    if match is None:
        return None
    mode, uid, gid, size, mtime = match.groups()
    return int(mode, 8), int(uid, 8), int(gid, 8), int(size, 8), int(mtime, 8)


def raw_name(header: bytes) -> bytes:
    """The entry's name, if no extended header has a longer one."""
    name = header[:100].partition(b"\0")[0]
    # Only POSIX ustar has a prefix; the GNU format keeps times there.
    if header[257:263] == b"ustar\0" and header[345]:
        return header[345:500].partition(b"\0")[0] + b"/" + name
    return name


def number(field: bytes, what: str, place: str) -> int:
    """An octal number, or a base-256 one where the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") - ((field[0] & 0x80) << (8 * (len(field) - 1)))
        # The second bit is the sign (0xff… is negative).
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    digits = field.strip(b" \0").partition(b"\0")[0].rstrip(b" ")
    if not digits:
        return 0
    if digits.translate(None, b"01234567"):
        _malformed(what, digits, place)
    return int(digits, 8)


def records(body: bytes, place: str) -> dict[bytes, bytes]:
    """The records of a PAX header."""
    found: dict[bytes, bytes] = {}
    position = 0
    while position < len(body):
        space = body.find(b" ", position, position + 21)
        digits = body[position:space] if space > 0 else b""
        end = position + int(digits) if digits.isdigit() else 0
        key, equals, value = body[space + 1 : end - 1].partition(b"=")
        if end <= space + 1 or end > len(body) or body[end - 1] != 0x0A or not equals or not key:
            raise LayerError("an extended header is malformed", place=place)
        found[key] = value
        position = end
    return found


def integer(pax: dict[bytes, bytes], key: bytes, default: int, place: str) -> int:
    """A record that is a whole number."""
    value = pax.get(key)
    if not value:
        return default
    if not value.isdigit() or len(value) > 19:
        _malformed(key.decode(), value, place)
    return int(value)


def nanoseconds(value: bytes, place: str) -> int:
    """A time of a record, seconds with a fraction."""
    match = _DECIMAL.fullmatch(value)
    if match is None:
        _malformed("mtime", value, place)
    sign, seconds, fraction = match.groups()
    total = int(seconds) * 1_000_000_000 + int((fraction or b"")[:9].ljust(9, b"0"))
    return -total if sign == b"-" else total


def _malformed(what: str, value: bytes, place: str) -> NoReturn:
    raise LayerError(f"the {what} {value.decode('latin-1')!r} in its header is malformed", place=place)
