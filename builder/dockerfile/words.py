"""Words: text with variables, quotes and escapes, read once and expanded any number of times.

`parse_word` reads a word with grammar/words.lark (a text without anything special needs no grammar), `expand` fills in
the variables at plan time, without Lark. The rules are those of BuildKit's frontend/dockerfile/shell/lex.go. A word
that is malformed (`${`, an open quote) is kept with a `Bad` part and refused when it is expanded: BuildKit expands only
what the target needs, so a bad word in another stage must not fail the build.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from builder.dockerfile.plain import turn_to_grammar
from builder.dockerfile.text import SPACE, quote
from builder.errors import DockerfileError

MAXIMUM_NESTING = 64
"""How deep `${a:-${b:-…}}` may be nested: what is read must be safe to walk and to encode recursively."""

MAXIMUM_GROWTH = 1 << 20
"""Characters that variables may add to a word: ten lines of `ARG A=$A$A$A…` could be more than there is memory for.
BuildKit has no bound. Linux takes 128 KiB in one variable of the environment."""


Mode = Literal["word", "body", "shown", "line"]
"""What is taken off while reading (fields of BuildKit's Lex).

- `word`: quotes and escapes are processed and removed: nearly everywhere.
- `body`: quotes are plain text (SkipProcessQuotes): the text of a here-document of COPY and ADD.
- `shown`: quotes are processed and stay (RawQuotes): names of steps, `RUN echo "$A"`.
- `line`: quotes and escapes stay (RawQuotes, RawEscapes): a command line in which here-documents are looked for.
"""


class Text(msgspec.Struct, frozen=True, array_like=True, tag="t"):
    """Fixed text. When `quoted`, its white space does not separate words."""

    text: str
    quoted: bool = False


class Quoted(msgspec.Struct, frozen=True, array_like=True, tag="q"):
    """The inside of double quotes."""

    parts: "tuple[Part, ...]"


class Variable(msgspec.Struct, frozen=True, array_like=True, tag="v"):
    """`$name` or, with `braces`, `${name}`, `${name<operator>word}` and `${name/word/replacement}`.

    `operator` is one of `` - :- + :+ ? :? # % / //``, or a colon with another character, which is refused.
    """

    name: str
    braces: bool = False
    operator: str = ""
    word: "tuple[Part, ...]" = ()
    replacement: "tuple[Part, ...]" = ()


class Field(msgspec.Struct, frozen=True, array_like=True, tag="f"):
    """A field `prefix` + parts of a comma separated list, put in quotes if what comes out needs them (RFC 4180)."""

    prefix: str
    parts: "tuple[Part, ...]"


class Bad(msgspec.Struct, frozen=True, array_like=True, tag="b"):
    """The word could not be read; `message` is raised when it is expanded."""

    message: str


Part = Text | Quoted | Variable | Field | Bad

# They hold each other. msgspec would compile each text that stands for a type when it first decodes a word.
for _part, _field in ((Quoted, "parts"), (Variable, "word"), (Variable, "replacement"), (Field, "parts")):
    _part.__annotations__[_field] = tuple[Part, ...]


class Word(msgspec.Struct, frozen=True, array_like=True):
    """A word: `source` as written; `parts` is None where the source is the value as it is."""

    source: str
    parts: tuple[Part, ...] | None = None


class Expansion(msgspec.Struct, frozen=True):
    """What a word became, the variables that had a value, and those that had none, in order of their first use."""

    text: str
    used: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()


_SHOWN = 1000  # characters of a word that errors show

_SPECIAL = {("\\", False): "$'\"\\<", ("`", False): "$'\"`<", ("\\", True): "$\\", ("`", True): "$`"}


def literal(text: str) -> Word:
    """A word that is never expanded."""
    return Word(text)


def parse_word(text: str, escape: str = "\\", mode: Mode = "word") -> Word:
    """Read a word. `escape` is the Dockerfile's escape character, a backslash or a backtick. Never fails, see `Bad`."""
    if not any(character in text for character in _SPECIAL[escape, mode == "body"]):
        return Word(text)
    turn_to_grammar()
    from builder.dockerfile.word_parts import read_parts

    return Word(text, read_parts(text, escape, mode))


def expand(word: Word, env: Mapping[str, str], *, keep_unset: bool = False) -> Expansion:
    """Fill in the variables. With `keep_unset`, what has no value stays as written (SkipUnsetEnv).

    Raises DockerfileError (without a place) for a malformed word, for `${name:?message}`, and for a bad pattern.
    """
    if word.parts is None:
        return Expansion(word.source)
    expander = _Expander(env, keep_unset)
    text = expander.run(word).text(word.parts)
    return Expansion(text, tuple(expander.used), tuple(expander.unmatched))


def expand_words(word: Word, env: Mapping[str, str], *, keep_unset: bool = False) -> list[str]:
    """Fill in the variables, then split at white space that was neither quoted nor escaped (ProcessWords).

    White space in a variable's value splits too. As in BuildKit, what a word holds so far is lost when a `${…}` with an
    operator follows: `80${x:-81}` gives `81`. Raises as `expand`.
    """
    splitter = _Splitter()
    if word.parts is None:
        splitter.add(word.source)
        return splitter.finish()
    _Expander(env, keep_unset).run(word).split(word.parts, splitter)
    return splitter.finish()


class _Splitter:
    """Collects words from text that may be split and text that may not."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.current = ""

    def add(self, text: str) -> None:
        begin = 0
        for i, c in enumerate(text):
            if c in SPACE:
                self.current += text[begin:i]
                self.flush()
                begin = i + 1
        self.current += text[begin:]

    def flush(self) -> None:
        if self.current:
            self.words.append(self.current)
            self.current = ""

    def finish(self) -> list[str]:
        self.flush()
        return self.words


class _Expander:
    """One expansion: the environment, and which names were asked for."""

    def __init__(self, env: Mapping[str, str], keep_unset: bool) -> None:
        self._env = env
        self._keep_unset = keep_unset
        self._source = ""
        self._most = MAXIMUM_GROWTH
        self.used: dict[str, None] = {}
        self.unmatched: dict[str, None] = {}

    def run(self, word: Word) -> "_Expander":
        self._source = word.source
        self._most = len(word.source) + MAXIMUM_GROWTH
        return self

    def text(self, parts: tuple[Part, ...]) -> str:
        return "".join(self._values(parts))

    def _values(self, parts: tuple[Part, ...]) -> Iterator[str]:
        size = 0
        for part in parts:
            value = self._part(part)
            size += len(value)
            if size > self._most:
                raise self._failed(f"it becomes more than {MAXIMUM_GROWTH >> 20} MiB")
            yield value

    def split(self, parts: tuple[Part, ...], splitter: _Splitter) -> None:
        for part, value in zip(parts, self._values(parts), strict=True):
            if _nested(part):
                splitter.current = ""
            if isinstance(part, Variable) or (isinstance(part, Text) and not part.quoted):
                splitter.add(value)
            else:
                splitter.current += value

    def _part(self, part: Part) -> str:
        if isinstance(part, Text):
            return part.text
        if isinstance(part, Variable):
            return self._variable(part)
        if isinstance(part, Quoted):
            return self.text(part.parts)
        if isinstance(part, Field):
            return _csv_field(part.prefix + self.text(part.parts))
        raise self._failed(part.message)

    def _failed(self, message: str) -> DockerfileError:
        return DockerfileError(f"cannot expand {quote(self._source[:_SHOWN])}: {message}")

    def _variable(self, variable: Variable) -> str:
        # nested words first and always: a malformed or refused one fails even where its text is not needed
        word = self.text(variable.word)
        replacement = self.text(variable.replacement)
        name, operator = variable.name, variable.operator
        value = self._env.get(name)
        (self.unmatched if value is None else self.used)[name] = None
        if value is None and self._keep_unset:
            if not variable.braces:
                return f"${name}"
            if operator in ("/", "//"):
                return f"${{{name}/{word}/{replacement}}}"
            return f"${{{name}{operator}{word}}}"
        match operator:
            case "":
                return value or ""
            case "-" | ":-":
                return word if value is None or (not value and operator == ":-") else value
            case "+" | ":+":
                return "" if value is None or (not value and operator == ":+") else word
            case "?" | ":?":
                return self._required(name, value, operator, word)
            case "#" | "%" | "/" | "//":
                return self._matched(value or "", operator, word, replacement)
        raise self._failed(f"unsupported modifier ({operator}) in substitution")

    def _required(self, name: str, value: str | None, operator: str, message: str) -> str:
        if value is None:
            raise self._failed(f"{name}: {message or 'is not allowed to be unset'}")
        if not value and operator == ":?":
            raise self._failed(f"{name}: {message or 'is not allowed to be empty'}")
        return value

    def _matched(self, value: str, operator: str, pattern: str, replacement: str) -> str:
        from builder.dockerfile.patterns import BadPattern, replace, trim

        try:
            if operator in ("#", "%"):
                return trim(pattern, value, suffix=operator == "%")
            return replace(pattern, value, replacement, everywhere=operator == "//", most=self._most)
        except BadPattern as error:
            raise self._failed(f"invalid pattern ({pattern[:_SHOWN]}) in substitution: {error}") from None


def _nested(part: Part) -> bool:
    """Whether a `${…}` with an operator is in it: such a one empties BuildKit's buffer of the current word."""
    if isinstance(part, Variable):
        return bool(part.operator)
    return isinstance(part, Quoted) and any(_nested(inner) for inner in part.parts)


def _csv_field(text: str) -> str:
    if "," in text or '"' in text:
        return '"' + text.replace('"', '""') + '"'
    return text
