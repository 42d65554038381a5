r"""Lines with nothing special in them, taken apart without the grammar.

`grammar/dockerfile.lark` says what every line means; loading Lark and its tables takes longer than all else that a
build of cached steps reads. Nearly all lines have no quotes, escapes or odd white space where these count, and then are
no more than words between blanks. Each function gives what the rule of its name gives, or None for what is left to it.
"""

from __future__ import annotations

import re

import msgspec

_COMMAND = re.compile(r"""([A-Za-z]+)((?:[ \t]+--[^\s'"\\`]+)*)[ \t]+([^\s-].*)""", re.DOTALL)
_SPECIAL = re.compile(r"""['"\\`]|[^\S \t]""")


def command(line: str) -> tuple[str, tuple[str, ...], str] | None:
    """`KEYWORD --flag=value … BODY`."""
    found = _COMMAND.fullmatch(line)
    return None if found is None else (found[1], tuple(found[2].split()), found[3])


def words(text: str) -> list[str] | None:
    """Of ENV, LABEL and ARG, and `arguments`, which is the same where nothing is special."""
    return None if _SPECIAL.search(text) else text.split()


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
