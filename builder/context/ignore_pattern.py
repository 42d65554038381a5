"""Patterns of ignore files and of `COPY --exclude`, translated to regular expressions.

The syntax is Docker's (moby/patternmatcher), which is neither git's nor Go's `filepath.Match`: `*` and `?` stop at a
slash, `**` does not, a pattern is anchored at the root of the context, and what it matches takes everything below with
it. BuildKit makes a Go regular expression of it; so that the curious corners agree too (`[*]`, `\\d`, `**name`), this
module makes the same expression first; `go_regex` then says it in Python's dialect.

Imported only when a pattern must be translated: `pathspec` takes 30 ms to load, and a rebuild finds its rules in the
cache.
"""

from __future__ import annotations

import posixpath
import re

from pathspec.pattern import RegexPattern

from builder.context.go_regex import BadPattern, python_expression

_META = frozenset(".+()|{}$")


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
        body = python_expression(expression, pattern)
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
