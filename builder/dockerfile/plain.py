r"""Lines with nothing special in them, taken apart without the grammar.

`grammar/dockerfile.lark` says what every line means; loading Lark and its tables takes longer than all else that a
build of cached steps reads. Nearly all lines have no quotes, escapes or odd white space where these count, and then are
no more than words between blanks. Each function gives what the rule of its name gives, or None for what is left to it.

Whoever would rather do something else than load the grammar says so with `plain_only`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

_FLAGGED = r"""([A-Za-z]+)((?:[ \t]+--[^\s'"\\`]+)+)[ \t]+([^\s-].*)"""
_QUOTES = frozenset("\"'`\\")
_here = threading.local()  # `plain_only`, while that is so


def looks_plain(text: bytes) -> bool:
    """Whether a short look at a Dockerfile finds nothing that needs the grammar."""
    continued = command = False
    for line in text.split(b"\n"):
        line = line.strip()
        if not continued:
            command = line[:4].upper() == b"RUN "
        continued = line.endswith(b"\\")
        if b"<<" in line or not (command or _has_plain_words(line.rstrip(b"\\"))):
            return False
    return True


def _has_plain_words(line: bytes) -> bool:
    if any(character in line for character in (b"$", b"'", b"`", b"\\")):
        return False
    return b'"' not in line or b"[" in line  # an array, of whose strings nothing is expanded


class GrammarNeeded(Exception):
    """A text is not plain, and nobody wants the grammar loaded for it."""


@contextmanager
def plain_only() -> Iterator[None]:
    """In the block, raise GrammarNeeded where the grammar would be used."""
    before = _is_plain_only()
    _here.plain_only = True
    try:
        yield
    finally:
        _here.plain_only = before


def turn_to_grammar() -> None:
    """What comes before any use of the grammar. Raises GrammarNeeded."""
    if _is_plain_only():
        raise GrammarNeeded


def _is_plain_only() -> bool:
    return getattr(_here, "plain_only", False)


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
