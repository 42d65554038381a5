"""What the rules of dockerfile.lark become: called by the parser for each of them, with the tokens as children."""

from __future__ import annotations

import json
import re
from functools import cache

from lark import Lark, Token, Transformer

from builder.dockerfile.grammar import make_parser
from builder.dockerfile.text import SPACE

_QUOTED = re.compile(r"""\\(.)|\\\Z|(['"])""", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")

Split = tuple[str, tuple[str, ...], str]
"""A command line: the keyword, the flags without quotes, the body."""


class Forms(Transformer[Token, object]):
    """Gives each start rule's value: `command` a Split, the others a list of strings."""

    def command(self, children: list[Token | str]) -> Split:
        keyword, *rest = children
        body = ""
        if rest and isinstance(rest[-1], Token):
            body = str(rest.pop()).strip(SPACE)
        return str(keyword), tuple(str(flag) for flag in rest), body

    def flag(self, children: list[Token]) -> str:
        return "".join(_unquoted(token) for token in children)

    def arguments(self, children: list[Token | None]) -> list[str]:
        return [str(token) for token in children if token is not None]

    origin = words = legacy_pair = health = arguments

    def string(self, children: list[Token]) -> str:
        # Go's decoder puts U+FFFD for half a surrogate pair
        return _SURROGATE.sub("\ufffd", json.loads(children[0]))

    def other(self, children: list[object]) -> None:
        return None

    def member(self, children: list[object]) -> None:
        return None

    def array(self, children: list[str | None]) -> list[str] | None:
        """None when an element is not a string."""
        found = [child for child in children if child is not None]
        return found if len(found) == len(children) else None


@cache
def line_parser() -> Lark:
    """The parser of dockerfile.lark, with one start rule for the command and one for each form of its body."""
    return make_parser(
        "dockerfile.lark", ["command", "arguments", "origin", "words", "legacy_pair", "health", "array"], Forms()
    )


def _unquoted(token: Token) -> str:
    if token.type == "FLAG_ESCAPE":
        return str(token[1:])
    if token.type != "FLAG_QUOTED":
        return str(token)
    out = ""
    quote, position = token[0], 1
    for match in _QUOTED.finditer(token, 1):
        if match[2] and match[2] != quote:
            continue
        out += token[position : match.start()] + (match[1] or "")
        position = match.end()
    return out + token[position:]
