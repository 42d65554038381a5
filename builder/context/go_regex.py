"""Go's regular expressions in Python's dialect: as much of them as BuildKit makes of an ignore file's patterns."""

from __future__ import annotations

import re

_CONTROLS = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_POSIX_CLASSES = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "ascii": r"\x00-\x7f", "blank": r"\t ", "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9", "graph": "!-~", "lower": "a-z", "print": " -~", "punct": r"!-/:-@\[-`{-~", "space": r"\t-\r ",
    "upper": "A-Z", "word": "0-9A-Za-z_", "xdigit": "0-9A-Fa-f",
}  # fmt: skip
_STAR, _DIRECTORIES, _REST = "[^/]*", "(.*/)?", ".*"
_MOST_LOOSE = 3


class BadPattern(ValueError):
    """A pattern that Docker refuses; the text says why."""


def python_expression(expression: str, pattern: str) -> str:
    """The subset of Go's syntax that `ignore_pattern` makes, in Python's. Raises BadPattern where Go refuses it.

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
