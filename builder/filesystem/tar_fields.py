"""Names, numbers and PAX records as the headers of tar archives hold them."""

from __future__ import annotations

from typing import NoReturn

from builder.errors import LayerError

_MOST_DIGITS = 18  # of seconds
_OCTAL = b"01234567"
_USUAL_ENDS = b"\0\0\0\0\0"


def usual_numbers(header: bytes) -> tuple[int, int, int, int, int] | None:
    """Mode, uid, gid, size and mtime in one go, as most programs write them; None if any is written otherwise."""
    # Nothing but octal digits and five NULs, each behind the digits of a field.
    numbers = header[100:148]
    ends = numbers[7:24:8] + numbers[35::12]
    if ends != _USUAL_ENDS or numbers.translate(None, _OCTAL) != _USUAL_ENDS:
        return None
    mode, uid, gid, size, mtime, _ = numbers.split(b"\0")
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
    if digits.translate(None, _OCTAL):
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
    whole, _, fraction = value.partition(b".")
    seconds = whole[1:] if whole[:1] in (b"+", b"-") else whole
    if not seconds.isdigit() or len(seconds) > _MOST_DIGITS or (fraction and not fraction.isdigit()):
        _malformed("mtime", value, place)
    total = int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    return -total if whole[:1] == b"-" else total


def _malformed(what: str, value: bytes, place: str) -> NoReturn:
    raise LayerError(f"the {what} {value.decode('latin-1')!r} in its header is malformed", place=place)
