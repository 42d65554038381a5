"""Patterns of ignore files and of `COPY --exclude`, translated to regular expressions.

The syntax is Docker's (moby/patternmatcher), which is neither git's nor Go's `filepath.Match`: `*` and `?` stop at a
slash, `**` does not, a pattern is anchored at the root of the context, and what it matches takes everything below with
it. BuildKit makes a Go regular expression of it; so that the curious corners agree too (`[*]`, `\\d`, `**name`), this
module makes the same expression first and then says it in Python's dialect.

Imported only when a pattern must be translated: `pathspec` takes 30 ms to load, and a rebuild finds its rules in the
cache.
"""

from __future__ import annotations

import posixpath
import re

from pathspec.pattern import RegexPattern

_META = frozenset(".+()|{}$")
_CONTROLS = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_POSIX_CLASSES = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "ascii": r"\x00-\x7f", "blank": r"\t ", "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9", "graph": "!-~", "lower": "a-z", "print": " -~", "punct": r"!-/:-@\[-`{-~", "space": r"\t-\r ",
    "upper": "A-Z", "word": "0-9A-Za-z_", "xdigit": "0-9A-Fa-f",
}  # fmt: skip


class BadPattern(ValueError):
    """A pattern that Docker refuses; the text says why."""


class DockerPattern(RegexPattern):
    """One pattern of an ignore file, for use with pathspec: `include` means that what matches is ignored.

    `clean` is the normalised pattern without its `!`. An empty pattern is a null operation. Raises BadPattern.
    """

    __slots__ = ("clean",)

    def __init__(self, pattern: str) -> None:
        super().__init__(pattern)
        self.clean = normalise(pattern)[0]

    @classmethod
    def pattern_to_regex(cls, pattern: str) -> tuple[str | None, bool | None]:  # type: ignore[override]
        """The anchored regular expression and whether what matches is ignored (True) or kept (False)."""
        clean, negated = normalise(pattern)
        if not clean:
            return None, None
        return translate(clean), not negated


def normalise(pattern: str) -> tuple[str, bool]:
    """The cleaned path of a pattern, and whether it is an exception (`!`). Raises BadPattern for a lone `!`."""
    pattern = strip(pattern)
    if not pattern:
        return "", False
    pattern = clean_path(pattern)
    if not pattern.startswith("!"):
        return pattern, False
    if pattern == "!":
        raise BadPattern("an exception needs a pattern after its '!'")
    return pattern[1:], True


def strip(text: str) -> str:
    """`text` without the white space around it, as Unicode (and Go) defines it; `str.strip` takes separators too."""
    return text.strip("\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
                      "\u2028\u2029\u202f\u205f\u3000")  # fmt: skip


def clean_path(path: str) -> str:
    """The shortest equivalent of a slash-separated path, lexically (Go's `filepath.Clean`)."""
    path = posixpath.normpath(path)
    return path[1:] if path.startswith("//") else path  # POSIX gives two leading slashes a meaning of their own


def translate(pattern: str) -> str:
    """The regular expression, anchored at both ends, of a cleaned pattern without `!`. Raises BadPattern."""
    _check_syntax(pattern)
    kind, expression = _go_expression(pattern)
    if kind == "exact":
        body = re.escape(pattern)
    elif kind == "prefix":
        body = re.escape(pattern[:-2]) + "(?s:.*)"
    elif kind == "suffix":
        suffix = pattern[2:]
        body = "(?s:.*)" + re.escape(suffix)
        if suffix.startswith("/"):  # `**/name` is also `name` at the root
            body = f"(?:{body}|{re.escape(suffix[1:])})"
    else:
        body = _python_expression(expression, pattern)
    return rf"\A(?a:{body})\Z"


def _check_syntax(pattern: str) -> None:
    """Refuse what Go's `filepath.Match` calls malformed: an open or empty class, a range without end, a last `\\`."""
    at, end = 0, len(pattern)

    def class_character(at: int) -> int:
        if at < end and pattern[at] in "-]":
            raise BadPattern(f"a character class in {pattern!r} lacks a character before {pattern[at]!r}")
        if at < end and pattern[at] == "\\":
            at += 1
        if at + 1 >= end:  # a class must go on after any of its characters
            raise BadPattern(f"a character class in {pattern!r} is not closed with ']'")
        return at + 1

    while at < end:
        if pattern[at] == "\\":
            at += 1
            if at == end:
                raise BadPattern(f"{pattern!r} ends in a lone backslash")
            at += 1
        elif pattern[at] == "[":
            at += 1
            if pattern[at : at + 1] == "^":
                at += 1
            first = True
            while first or pattern[at] != "]":
                first = False
                at = class_character(at)
                if pattern[at] == "-":
                    at = class_character(at + 1)
            at += 1
        else:
            at += 1


def _go_expression(pattern: str) -> tuple[str, str]:
    """How BuildKit matches the pattern ("exact", "prefix", "suffix" or "regex"), and its regular expression."""
    kind = "exact"
    out: list[str] = []
    at, end = 0, len(pattern)
    while at < end:
        character, first = pattern[at], at == 0
        at += 1
        if character == "*" and pattern[at : at + 1] == "*":
            at += 1
            if pattern[at : at + 1] == "/":
                at += 1
            if at < end:
                if out[-1:] != ["(.*/)?"]:  # twice is the same, and slow
                    out.append("(.*/)?")
                kind = "regex"
            elif kind == "exact":
                kind = "prefix"
            else:
                out.append(".*")
                kind = "regex"
            if first:
                kind = "suffix"
        elif character == "*":
            out.append("[^/]*")
            kind = "regex"
        elif character == "?":
            out.append("[^/]")
            kind = "regex"
        elif character in _META:
            out.append("\\" + character)
        elif character == "\\":
            out.append("\\" + pattern[at])
            at += 1
            kind = "regex"
        else:
            if character in "[]":
                kind = "regex"
            out.append(character)
    return kind, "".join(out)


def _python_expression(expression: str, pattern: str) -> str:
    """The subset of Go's syntax that `_go_expression` makes, in Python's. Raises BadPattern where Go refuses it."""
    out, at = [], 0
    while at < len(expression):
        character = expression[at]
        at += 1
        if character == "[":
            text, at = _python_class(expression, at, pattern)
            out.append(text)
        elif character == "\\":
            out.append(_escape(expression[at], pattern))
            at += 1
        elif character == "(":
            out.append("(?:")
        elif character in ")?*.^":
            out.append(character)
        else:
            out.append(re.escape(character))
    return "".join(out)


def _escape(character: str, pattern: str) -> str:
    r"""What `\` and a character match: BuildKit hands both to Go, so `\d` is a digit and `\q` is refused."""
    if character in _CONTROLS:
        return re.escape(_CONTROLS[character])
    if character in "dDsSwW":
        return "\\" + character
    if character.isascii() and not character.isalnum():
        return re.escape(character)
    raise BadPattern(f"{pattern!r} has a backslash before {character!r}, which needs none")


def _python_class(expression: str, at: int, pattern: str) -> tuple[str, int]:
    """The character class whose `[` is before `at`, and where it ends."""
    out = ["["]
    if expression[at : at + 1] == "^":
        out.append("^")
        at += 1

    def member(at: int) -> tuple[str, int]:
        if at >= len(expression):
            raise BadPattern(f"a character class in {pattern!r} is not closed with ']'")
        if expression[at] != "\\":
            return expression[at], at + 1
        character = expression[at + 1]
        escaped = _escape(character, pattern)
        if character in "dDsSwW":
            return escaped, at + 2
        return _CONTROLS.get(character, character), at + 2

    first = True
    while first or expression[at : at + 1] != "]":
        first = False
        if expression.startswith("[:", at) and (close := expression.find(":]", at + 2)) >= 0:
            name = expression[at + 2 : close]
            if name not in _POSIX_CLASSES:
                raise BadPattern(f"{pattern!r} names an unknown character class [:{name}:]")
            out.append(_POSIX_CLASSES[name])
            at = close + 2
            continue
        low, at = member(at)
        if len(low) == 2:
            out.append(low)
            continue
        high = low
        if expression[at : at + 1] == "-" and expression[at + 1 : at + 2] not in ("]", ""):
            high, at = member(at + 1)
            if len(high) == 2 or high < low:
                raise BadPattern(f"{pattern!r} has the empty range {low}-{high}")
        out.append(re.escape(low) if high == low else f"{_in_class(low)}-{_in_class(high)}")
    return "".join(out) + "]", at + 1


def _in_class(character: str) -> str:
    return f"\\U{ord(character):08x}"
