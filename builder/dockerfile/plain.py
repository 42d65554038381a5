r"""Lines with nothing special in them, taken apart without the grammar.

`grammar/dockerfile.lark` says what every line means; loading Lark and its tables takes longer than all else that a
build of cached steps reads. Nearly all lines have no quotes, escapes or odd white space where these count, and then are
no more than words between blanks. Each function gives what the rule of its name gives, or None for what is left to it.
"""

from __future__ import annotations

import re

import msgspec

_FLAGGED = r"""([A-Za-z]+)((?:[ \t]+--[^\s'"\\`]+)+)[ \t]+([^\s-].*)"""
_QUOTES = frozenset("\"'`\\")


def command(line: str) -> tuple[str, tuple[str, ...], str] | None:
    """`KEYWORD --flag=value … BODY`."""
    keyword = line.replace("\t", " ").partition(" ")[0]
    body = line[len(keyword) :].lstrip(" \t")
    if body.startswith("--"):  # compiling the pattern takes as long as reading a hundred lines without it
        found = re.fullmatch(_FLAGGED, line, re.DOTALL)
        return None if found is None else (found[1], tuple(found[2].split()), found[3])
    is_plain = keyword.isascii() and keyword.isalpha() and body != "" and body[0] != "-" and not body[0].isspace()
    return (keyword, (), body) if is_plain else None


def words(text: str) -> list[str] | None:
    """Of ENV, LABEL and ARG, and `arguments`, which is the same where nothing is special."""
    found = text.split()
    between_blanks = [word for word in text.replace("\t", " ").split(" ") if word]
    return found if found == between_blanks and _QUOTES.isdisjoint(text) else None


def origin(text: str) -> list[str] | None:
    """`image [AS name]`."""
    found = words(text)
    if found is not None and (len(found) == 1 or (len(found) == 3 and found[1].lower() == "as")):
        return found
    return None


def array(text: str) -> list[str] | None:
    """A JSON array of strings without escapes."""
    if "\\" in text:
        return None
    try:
        return msgspec.json.decode(text, type=list[str])
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return None
