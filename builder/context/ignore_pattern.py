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


_STAR, _DIRECTORIES, _REST = "[^/]*", "(.*/)?", ".*"
_MOST_LOOSE = 3


def _python_expression(expression: str, pattern: str) -> str:
    """The subset of Go's syntax that `_go_expression` makes, in Python's. Raises BadPattern where Go refuses it.

    Go matches in linear time, and Python goes back and tries again: many wildcards would take exponential time. So what
    follows a wildcard is put into an atomic group where the first place at which it fits is as good as any other.
    """
    units: list[list[str]] = [[]]  # of atoms and stars, between the `**/`
    rest = False
    at = 0
    while at < len(expression):
        character = expression[at]
        if expression.startswith(_DIRECTORIES, at):
            units.append([])
            at += len(_DIRECTORIES)
        elif expression.startswith(_STAR, at):
            units[-1].append(_STAR)
            at += len(_STAR)
        elif expression.startswith(_REST, at):  # at the end alone
            rest = True
            at += len(_REST)
        elif character == "[":
            text, at = _python_class(expression, at + 1, pattern)
            if expression[at : at + 1] == "*":  # of a star that BuildKit put inside of a class
                text, at = f"{text}*", at + 1
            units[-1].append(text)
        elif character == "\\":
            units[-1].append(_escape(expression[at + 1], pattern))
            at += 2
        else:
            units[-1].append(character if character in ".^" else re.escape(character))
            at += 1
    out, loose = [], 0
    for position, unit in enumerate(units):
        last = position == len(units) - 1
        text, choices = _unit(unit, followed_by_any=rest and last, at_end=last or unit[-1:] == ["/"])
        if not position:
            out.append(text)
        elif last or unit[-1:] != ["/"] or choices:
            out.append(f"(?:.*/)?{text}")
            choices += not last
        else:
            # Each place after a slash that a later `**/` can reach, it reaches from the first one as well.
            out.append(f"(?>(?:.*?/)??{text})")
        loose += choices
    if loose > _MOST_LOOSE:
        raise BadPattern(f"{pattern!r} has more wildcards beside each other than can be matched in good time")
    return "".join(out) + (".*" if rest else "")


def _unit(atoms: list[str], *, followed_by_any: bool, at_end: bool) -> tuple[str, int]:
    """The expression of what is between two `**/`, and in how many places it has to go back and try again.

    A star's text ends at the latest where the component does. So the first place at which what follows it fits is the
    best one if another star comes next, and the only one if the component's end does; unless what follows the star may
    itself match a slash.
    """
    out: list[str] = []
    loose = 0
    at = 0
    while at < len(atoms):
        if atoms[at] != _STAR:
            out.append(atoms[at])
            loose += _repeats(atoms[at])
            at += 1
            continue
        start = at = at + 1
        while at < len(atoms) and atoms[at] not in (_STAR, "/"):
            at += 1
        piece = "".join(atoms[start:at])
        crosses = any(_may_be_slash(atom) or _repeats(atom) for atom in atoms[start:at])
        star_next = atoms[at : at + 1] == [_STAR] or (at == len(atoms) and followed_by_any)
        if star_next and not crosses:
            out.append(f"(?>[^/]*?{piece})")
            continue
        out.append(f"[^/]*{piece}")
        if crosses or (at == len(atoms) and not at_end):
            loose += 1
    return "".join(out), loose


def _repeats(atom: str) -> bool:
    return atom.startswith("[") and atom.endswith("*")


def _may_be_slash(atom: str) -> bool:
    return atom.startswith(("[", "\\")) and re.compile(f"(?a:{atom})").fullmatch("/") is not None


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
