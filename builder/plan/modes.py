"""`--chmod`: octal numbers and symbolic modes (`u=rwX,go=rX`), as chmod(1) reads them with a umask of 0."""

from __future__ import annotations

import re

from builder.errors import PlanError

_CLAUSE = r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)"
_ACTION = r"([-+=])([ugo]|[rwxXst]*)"
_SHIFT = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}


def parse_mode(text: str) -> int | str:
    """An octal mode as a number, a symbolic one as it is once it was checked. Raises PlanError."""
    if text.isascii() and text.isdigit():
        try:
            number = int(text, 8)
        except ValueError:
            number = 0o10000
        if number > 0o7777:
            raise PlanError(
                f"invalid mode {text!r}: an octal mode is between 0 and 07777", remedy="write for example --chmod=644"
            )
        return number
    if not all(re.fullmatch(_CLAUSE, clause) for clause in text.split(",")):
        raise PlanError(
            f"invalid mode {text!r}: neither octal nor symbolic",
            remedy="write for example --chmod=755 or --chmod=u=rwX,go=rX",
        )
    return text


def apply_mode(mode: int | str, current: int, directory: bool) -> int:
    """The permission bits of a file that had `current`, after `mode` (which `parse_mode` made)."""
    if isinstance(mode, int):
        return mode
    for clause in mode.split(","):
        match = re.fullmatch(_CLAUSE, clause)
        assert match is not None  # parse_mode checked it
        who = set(match[1]) or {"a"}
        if "a" in who:
            who = {"u", "g", "o"}
        for operator, permissions in re.findall(_ACTION, match[2]):
            current = _apply(current, who, operator, permissions, directory)
    return current


def _apply(current: int, who: set[str], operator: str, permissions: str, directory: bool) -> int:
    bits = affected = 0
    for target in who:
        shift = _SHIFT[target]
        affected |= 7 << shift
        for letter in permissions:
            if letter in _BITS:
                bits |= _BITS[letter] << shift
            elif letter == "X" and (directory or current & 0o111):
                bits |= 1 << shift
            elif letter in _SHIFT:
                bits |= (current >> _SHIFT[letter] & 7) << shift
    if "s" in permissions:
        bits |= (0o4000 if "u" in who else 0) | (0o2000 if "g" in who else 0)
    if "t" in permissions and who != {"o"}:  # as BSD's setmode: "other" has no sticky bit
        bits |= 0o1000
    if operator == "+":
        return current | bits
    if operator == "-":
        return current & ~bits
    special = (0o4000 if "u" in who else 0) | (0o2000 if "g" in who else 0) | (0o1000 if "o" in who else 0)
    return current & ~(affected | special) | bits
