"""Small things about text that all of the parser shares: white space, quoting in messages, nearby names."""

from __future__ import annotations

from collections.abc import Iterable

SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""What Go's unicode.IsSpace calls white space. Python's str.isspace also takes U+001C to U+001F."""

_LONG = 60
_ESCAPES = {
    '"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
}  # fmt: skip


def quote(text: str) -> str:
    """The text in quotes for a message: control characters escaped, cut when long."""
    if len(text) > _LONG:
        text = text[: _LONG - 1] + "…"
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    mark = "'" if '"' in shown and "'" not in shown else '"'
    return f"{mark}{shown}{mark}"


def quoted(text: str) -> str:
    """The text as Go's `strconv.Quote` writes it (`%q`), as history and messages show words."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    code = ord(char)
    if short := _ESCAPES.get(char):
        return short
    if char.isprintable():
        return char
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def nearest(text: str, options: Iterable[str], *, fold: bool = False) -> str:
    """The option at most two edits away from `text`, or '': as BuildKit's util/suggest, but two letters that have
    changed places are one edit. `fold` ignores case."""
    found, least = "", 3
    wanted = text.lower() if fold else text
    for option in sorted(options):
        other = option.lower() if fold else option
        if other == wanted:
            return ""
        if abs(len(other) - len(wanted)) < least:
            distance = _distance(wanted, other)
            if distance < least:
                found, least = option, distance
    return found


def did_you_mean(text: str, options: Iterable[str], *, fold: bool = False) -> str:
    """` (did you mean X?)`, or '' where no option is near."""
    found = nearest(text, options, fold=fold)
    return f" (did you mean {found}?)" if found else ""


def _distance(one: str, other: str) -> int:
    """How many letters are inserted, removed, replaced or exchanged with their neighbour."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        above, row = row, [i]
        for j, b in enumerate(other, 1):
            steps = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and b == one[i - 2]:
                steps = min(steps, before[j - 2] + 1)
            row.append(steps)
        before = above
    return row[-1]
