"""What gives a secret away: the bytes that a value becomes.

Searched for are the value itself (without white space around it), its base64 in all three alignments and both
alphabets, and its URL encodings. Of a long value's base64 two pieces from its middle are searched for, since encoders
break lines; in a log all of it is looked for, however it is broken and indented. Not found is what was compressed,
encrypted or cut into pieces. Values that might stand anywhere by chance are not searched for: those of less than
SHORTEST bytes, and of less than SHORTEST_WORDS if they are letters alone; a build says so.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

SHORTEST = 8
SHORTEST_WORDS = 12
SPACE = b" \t\r\n\v\f"

_LONG = 64  # characters of base64 that encoders commonly put on a line
_PIECE = 32
_SHORTEST_BASE64 = 8


class Form(msgspec.Struct, frozen=True):
    """Bytes that give a secret away: whose (`secret 'npm'`), and in which encoding ('' for the value itself)."""

    data: bytes
    secret: str
    encoding: str = ""

    def __str__(self) -> str:
        return f"{self.secret} ({self.encoding})" if self.encoding else self.secret


def is_searchable(value: bytes) -> bool:
    """Whether a value is long enough to be found nowhere by chance."""
    words = value.translate(None, SPACE).isalpha()
    return len(value) >= (SHORTEST_WORDS if words else SHORTEST)


def encodings(value: bytes) -> Iterator[tuple[bytes, str]]:
    """The bytes that a value becomes, each with the encoding's name."""
    from urllib.parse import quote, quote_plus

    yield value, ""
    for text in _base64(value):
        if len(text) > _LONG:
            middle = len(text) // 2
            yield text[middle - _PIECE : middle], "base64"
            yield text[middle : middle + _PIECE], "base64"
        elif len(text) >= _SHORTEST_BASE64:
            yield text, "base64"
    for quoted in (quote(value, safe=""), quote(value), quote_plus(value)):
        yield quoted.encode(), "URL-encoded"
        yield _lower_escapes(quoted).encode(), "URL-encoded"


def dense_encodings(value: bytes) -> Iterator[tuple[bytes, str]]:
    """What becomes of a value that takes several lines, with all white space left out."""
    dense = value.translate(None, SPACE)
    if dense != value and is_searchable(dense):
        yield dense, ""
    for text in _base64(value):
        if len(text) > _LONG:
            yield text, "base64"


def _base64(value: bytes) -> Iterator[bytes]:
    """A value's base64 wherever it stands, without the characters that it shares with what is around it."""
    from base64 import b64encode

    for before in range(3):
        encoded = b64encode(bytes(before) + value)[(0, 2, 3)[before] :]
        whole = encoded[: (8 * (before + len(value)) // 6) - (0, 2, 3)[before]]
        yield from {whole, whole.translate(bytes.maketrans(b"+/", b"-_"))}


def _lower_escapes(quoted: str) -> str:
    head, *rest = quoted.split("%")
    return head + "".join(f"%{part[:2].lower()}{part[2:]}" for part in rest)
