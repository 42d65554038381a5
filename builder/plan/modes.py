"""`--chmod`: octal numbers and symbolic modes (`u=rwX,go=rX`), as BSD's setmode(3) reads them with a umask of 0, which
BuildKit has a port of. Other than in GNU's chmod(1), `X` looks at the mode before all clauses, `=` leaves the sticky
bit, and copies (`g=u`) leave the special bits.
"""

from __future__ import annotations

import re

from builder.errors import PlanError

_CLAUSE = r"([ugoa]*)((?:[-+=][rwxXstugo]*)+)"
_ACTION = r"([-+=])([rwxXstugo]*)"
_SHIFT = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111}
_SPECIAL = {"s": 0o6000, "t": 0o1000}
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o007, "a": 0o6777}
_EVERYBODY = _WHO["a"]


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
    executable = directory or bool(current & 0o111)  # `X` asks for what was there before all
    for clause in mode.split(","):
        match = re.fullmatch(_CLAUSE, clause)
        assert match is not None  # parse_mode checked it
        who = 0
        for target in match[1]:
            who |= _WHO[target]
        for operator, permissions in re.findall(_ACTION, match[2]):
            current = _act(current, who, operator, permissions, executable)
    return current


def _act(current: int, who: int, operator: str, permissions: str, executable: bool) -> int:
    """The bits after one action, which is done in parts: each copy of a class (the `g` of `u+rwg`) begins one."""
    letters, *copies = re.split("([ugo])", permissions)
    current, who = _apply(current, who, operator, letters, executable, whole=not copies)
    for source, letters in zip(copies[::2], copies[1::2], strict=True):
        current = _copy(current, who or _EVERYBODY, operator, current >> _SHIFT[source] & 7)
        current, who = _apply(current, who, operator, letters, executable, whole=False)
    return current


def _copy(current: int, who: int, operator: str, value: int) -> int:
    """Give a class the permissions of another. What is neither read, write nor execute stays."""
    for target, shift in _SHIFT.items():
        if not who & 7 << shift & _WHO[target]:
            continue
        if operator == "=":
            current &= ~(7 << shift)
        current = current & ~(value << shift) if operator == "-" else current | value << shift
    return current


def _apply(current: int, who: int, operator: str, letters: str, executable: bool, *, whole: bool) -> tuple[int, int]:
    """The bits after the letters of a part, and for whom the next part is: `t` makes it one for the sticky bit."""
    bits = 0
    for letter in letters:
        bits |= _BITS.get(letter, 0)
        if letter == "X" and operator == "-":  # takes away like `x`
            bits |= _BITS["x"]
        if letter in "st" and (not who or who & ~_WHO["o"]):  # others have neither
            bits |= _SPECIAL[letter]
            if letter == "t":
                who |= _SPECIAL["t"]
    mask = who or 0o7777
    if operator == "-":
        return current & ~(mask & bits), who
    if operator == "=" and (bits or whole):  # `X` beside a copy only adds
        current &= ~(who or _EVERYBODY)
    current |= mask & bits
    if "X" in letters and executable:
        current |= mask & _BITS["x"]
    return current, who
