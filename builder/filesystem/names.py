"""Names of files as they may be shown: an image can hold names with escape sequences for the reader's terminal."""

from __future__ import annotations

_ESCAPED_BYTES = range(0xDC80, 0xDD00)  # how Python keeps the bytes of a name that is not UTF-8


def printable(name: str) -> str:
    """The name with every character escaped that cannot be printed: controls, line ends, bytes that are not UTF-8."""
    if name.isprintable():
        return name
    return "".join(character if character.isprintable() else _escape(character) for character in name)


def _escape(character: str) -> str:
    number = ord(character)
    if number in _ESCAPED_BYTES:
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
