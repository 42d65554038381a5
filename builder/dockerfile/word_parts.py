"""Makes the parts of a word from what words.lark reads.

The grammar is the same for all modes. What depends on the mode, and on whether a text is a pattern (escapes stay for
the pattern's own rules), is decided when everything has been read: `_Items` are what the rules give, `Part`s what comes
out.
"""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

from lark import Lark, Token, Transformer, UnexpectedInput, UnexpectedToken

from builder.dockerfile.grammar import exchange, make_parser
from builder.dockerfile.words import MAXIMUM_NESTING, Bad, Mode, Part, Quoted, Text, Variable


class _Escape:
    """An escape character and what follows it; nothing follows at the end of the word."""

    def __init__(self, following: str) -> None:
        self.following = following


class _QuotedEscape(_Escape):
    """An escape character between double quotes, where it only escapes `"`, `$` and itself."""


class _Single:
    def __init__(self, text: str) -> None:
        self.text = text


class _Double:
    def __init__(self, items: _Items) -> None:
        self.items = items


class _Parameter:
    """`$name` or `${…}`."""

    def __init__(
        self, name: str, braces: bool, operator: str = "", word: _Items = (), replacement: _Items = ()
    ) -> None:
        self.name = name
        self.braces = braces
        self.operator = operator
        self.word = word
        self.replacement = replacement
        # the texts of a pattern keep their escapes: they mean something there
        self.raw = operator in ("#", "%", "/", "//")


_Item: TypeAlias = "Text | _Escape | _Single | _Double | _Parameter"
_Items: TypeAlias = "list[_Item] | tuple[()]"
_Operation: TypeAlias = "tuple[str, list[_Item], list[_Item]]"


class WordParts(Transformer[Token, object]):
    """Called by the parser for each rule of words.lark."""

    def word(self, children: list[_Item | Token]) -> list[_Item]:
        return [Text(str(c)) if isinstance(c, Token) else c for c in children]

    body = texts = word

    def plain(self, children: list[Token]) -> Text:
        return Text(str(children[0]))

    def less(self, children: list[Token]) -> Text:
        # blanks between << and the word do not separate them
        return Text(str(children[0]), quoted=True)

    def escape(self, children: list[Token]) -> _Escape:
        return _Escape(children[0][1:])

    def quoted_escape(self, children: list[Token]) -> _QuotedEscape:
        return _QuotedEscape(children[0][1:])

    def single(self, children: list[Token]) -> _Single:
        return _Single(children[0][1:-1])

    def double(self, children: list[_Item]) -> _Double:
        return _Double(children[1:-1])

    def variable(self, children: list[Token]) -> Text | _Parameter:
        name = str(children[0][1:])
        return _Parameter(name, braces=False) if name else Text("$")

    def parameter(self, children: list[Token | _Operation]) -> _Parameter:
        opening, operation, _ = children
        assert isinstance(operation, tuple)
        return _Parameter(str(opening[2:]), True, *operation)

    def operation(self, children: list[Token | list[_Item]]) -> _Operation:
        operator = str(children[0]) if children else ""
        word, *replacement = [child for child in children if isinstance(child, list)] or [[]]
        return operator, word, replacement[0] if replacement else []


@cache
def word_parser() -> Lark:
    """The parser of words.lark, with the start rules `word` and `body`."""
    return make_parser("words.lark", ["word", "body"], WordParts())


def read_parts(text: str, escape: str, mode: Mode) -> tuple[Part, ...]:
    """The parts of a word; a single `Bad` where it is malformed."""
    start = "body" if mode == "body" else "word"
    try:
        items: _Items = word_parser().parse(exchange(text, escape), start=start)  # type: ignore[assignment]
    except UnexpectedInput as error:
        return (Bad(exchange(_explain(error, exchange(text, escape)), escape)),)
    reader = _Resolver(escape, raw_quotes=mode in ("shown", "line"))
    try:
        return reader.parts(items, mode == "line", 0)
    except _TooDeepError:
        return (Bad(f"substitutions are nested more than {MAXIMUM_NESTING} deep"),)


def _explain(error: UnexpectedInput, text: str) -> str:
    """BuildKit's words for what is wrong, from where the parser stopped and what was open there."""
    interactive = getattr(error, "interactive_parser", None)
    stack = interactive.parser_state.value_stack if interactive else []
    opened = [token.type for token in stack if isinstance(token, Token)]
    at_end = isinstance(error, UnexpectedToken) and error.token.type == "$END"
    position = error.pos_in_stream or 0
    character = "" if at_end else text[position]
    accepted: set[str] = set(getattr(error, "expected", None) or getattr(error, "allowed", None) or ())
    unclosed_quote = character == "'" and "QUOTE" in accepted
    if "OPEN" in opened and (at_end or unclosed_quote):
        outermost = opened[opened.index("OPEN") + 1 :]
        if "OPEN" in outermost:
            outermost = outermost[: outermost.index("OPEN")]
        missing = "'/' in ${}" if "SLASHES" in outermost and "SLASH" not in outermost else "'}'"
        return f"syntax error: missing {missing}"
    if at_end:
        return "unexpected end of statement while looking for matching double-quote"
    if unclosed_quote:
        return "unexpected end of statement while looking for matching single-quote"
    if text.startswith("${", position):
        following = text[position + 2 : position + 3]
        if not following:
            return "syntax error: missing '}'"
        if following in "{}:":
            return "syntax error: bad substitution"
        character = following
    return f"unsupported modifier ({character}) in substitution"


class _TooDeepError(Exception):
    pass


class _Resolver:
    def __init__(self, escape: str, raw_quotes: bool) -> None:
        self._escape = escape
        self._raw_quotes = raw_quotes

    def parts(self, items: _Items, raw: bool, depth: int) -> tuple[Part, ...]:
        """The parts of items; `raw` keeps the escapes. Neighbouring texts are joined."""
        if depth > MAXIMUM_NESTING:
            raise _TooDeepError
        found: list[Part] = []
        for item in items:
            part = self._part(item, raw, depth)
            if isinstance(part, Text) and found:
                last = found[-1]
                if isinstance(last, Text) and last.quoted == part.quoted:
                    found[-1] = Text(last.text + part.text, part.quoted)
                    continue
            if not (isinstance(part, Text) and not part.text):
                found.append(part)
        return tuple(found)

    def _part(self, item: _Item, raw: bool, depth: int) -> Part:
        if isinstance(item, Text):
            return Text(exchange(item.text, self._escape), item.quoted)
        if isinstance(item, _Escape):
            return Text(self._escaped(item, raw), quoted=True)
        if isinstance(item, _Single):
            text = exchange(item.text, self._escape)
            return Text(f"'{text}'" if self._raw_quotes else text, quoted=True)
        if isinstance(item, _Double):
            inner = self.parts(item.items, raw, depth)
            if self._raw_quotes:
                inner = (Text('"'), *inner, Text('"'))
            if all(isinstance(part, Text) for part in inner):
                return Text("".join(part.text for part in inner if isinstance(part, Text)), quoted=True)
            return Quoted(inner)
        return Variable(
            item.name,
            item.braces,
            exchange(item.operator, self._escape),
            self.parts(item.word, item.raw, depth + 1) if item.word else (),
            self.parts(item.replacement, item.raw, depth + 1) if item.replacement else (),
        )

    def _escaped(self, item: _Escape, raw: bool) -> str:
        following = exchange(item.following, self._escape)
        if not isinstance(item, _QuotedEscape):
            return self._escape + following if raw else following
        if following:
            return self._escape + following if raw else following
        # BuildKit writes an escape that escapes nothing twice where escapes stay
        return self._escape * 2 if raw else self._escape
