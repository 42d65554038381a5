"""Finds the Lark grammars and makes parsers of them. Lark (50 ms) is imported when the first text is really parsed."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from builder.dockerfile.tables import Tables

if TYPE_CHECKING:
    from lark import Lark, Token, Transformer

_BUILDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_PLACES = (os.path.join(_BUILDER, "_grammar"), os.path.join(os.path.dirname(_BUILDER), "grammar"))

# Grammars know the backslash only: a text whose escape character is the backtick has the two exchanged, and so have
# the pieces that come out.
_EXCHANGED = str.maketrans("\\`", "`\\")


def grammar_file(name: str) -> str:
    """The path of a grammar: `builder/_grammar/` in a wheel, `grammar/` at the top of a checkout.

    Raises FileNotFoundError where neither has it, which means that the installation is broken.
    """
    for place in _PLACES:
        path = os.path.join(place, name)
        if os.path.isfile(path):
            return path
    raise FileNotFoundError(f"the grammar {name} is in none of {', '.join(_PLACES)}")


def make_parser(name: str, starts: list[str], transformer: Transformer[Token, object]) -> Lark:
    """A LALR parser with a contextual lexer; `transformer` is applied while parsing, so no tree is ever built.

    Its tables are kept where the interpreter keeps compiled modules, since making them takes 80 ms and reading them 5.
    """
    import lark

    with open(grammar_file(name), encoding="utf-8") as file:
        text = file.read()
    tables = Tables(name, [lark.__version__, *starts, text])
    known = tables.read()
    if known is not None:
        with suppress(Exception):  # whatever is wrong with the file, the grammar is here
            load: Any = lark.Lark._load_from_dict
            loaded: Lark = load(known["data"], known["memo"], transformer=transformer)
            return loaded
    settings: Any = {
        "parser": "lalr", "lexer": "contextual", "start": starts,
        "maybe_placeholders": False, "propagate_positions": False,
    }  # fmt: skip
    tables.write(lark.Lark(text, **settings))
    return lark.Lark(text, transformer=transformer, **settings)


def exchange(text: str, escape: str) -> str:
    """The text as the grammars want it, or back again."""
    return text if escape == "\\" else text.translate(_EXCHANGED)
