"""The wildcards of `${name#pattern}`, `${name%pattern}` and `${name/pattern/text}`.

BuildKit translates a pattern into a Go regular expression (`shell/lex.go`, convertShellPatternToRegex): `*` is any run
of characters and `?` any one, neither a newline; a backslash escapes `*`, `?` and itself, and is dropped before `}` and
`/`. Brackets are no classes. The same matches are found here without Python's `re`, which would need exponential time
for a pattern of many stars.
"""

from __future__ import annotations

from collections.abc import Callable

STAR, ANY = "star", "any"
Item = tuple[str, str]
"""(STAR, ''), (ANY, '') or ('', character)."""


_MOST_TRIED = 1_000_000  # states of a matcher; each is kept in memory
_TOO_LONG = "what it is replaced by is too long"


class BadPattern(ValueError):
    """The pattern escapes a character that must not be escaped, or what comes of it is too much."""


def trim(pattern: str, value: str, *, suffix: bool) -> str:
    """`${value#pattern}`, or `%` with `suffix`. The second character of `##` and `%%`, for the longest match, is the
    first one of `pattern`. Raises BadPattern."""
    operator = "%" if suffix else "#"
    greedy = pattern.startswith(operator)
    items = _items(pattern[greedy:], reverse=suffix)
    text = value[::-1] if suffix else value
    end = _Matcher(items, text, greedy).match(0)
    if end is None:
        return value
    return text[end:][::-1] if suffix else text[end:]


def replace(pattern: str, value: str, replacement: str, *, everywhere: bool, most: int = 1 << 20) -> str:
    """`${value/pattern/replacement}`, or `//` with `everywhere`, where `$0` and `$$` in the replacement mean the match
    and a dollar, as in Go's Regexp.ReplaceAllString. Raises BadPattern, also for more than `most` characters."""
    matcher = _Matcher(_items(pattern), value, True)
    if not everywhere:
        for start in range(len(value) + 1):
            end = matcher.match(start)
            if end is not None:
                return value[:start] + replacement + value[end:]
        return value
    out: list[str] = []
    size = last = position = 0
    while position <= len(value):
        end = matcher.match(position)
        if end is None:
            position += 1
            continue
        out.append(value[last:position])
        if end > last or position == 0:  # no empty match directly behind another match
            out.append(_template(replacement, value[position:end], most))
            size += len(out[-1])
            if size > most:
                raise BadPattern(_TOO_LONG)
        last = end
        position = max(end, position + 1)
    out.append(value[last:])
    return "".join(out)


def _items(pattern: str, *, reverse: bool = False) -> list[Item]:
    """The pattern's items, runs of stars taken together. Raises BadPattern."""
    if reverse:
        pattern = _reversed(pattern)
    items: list[Item] = []
    characters = iter(range(len(pattern)))
    for i in characters:
        c = pattern[i]
        if c == "*":
            if not items or items[-1][0] != STAR:
                items.append((STAR, ""))
        elif c == "?":
            items.append((ANY, ""))
        elif c == "\\":
            following = pattern[i + 1 : i + 2]
            if following in ("}", "/"):
                continue
            if following not in ("*", "?", "\\"):
                raise BadPattern(f"invalid escape '\\{following}'")
            items.append(("", following))
            next(characters)
        else:
            items.append(("", c))
    return items


def _reversed(pattern: str) -> str:
    """The pattern backwards, escapes kept in front of what they escape."""
    out: list[str] = []
    i = 0
    while i < len(pattern):
        width = 2 if pattern[i] == "\\" and i + 1 < len(pattern) else 1
        out.append(pattern[i : i + width])
        i += width
    return "".join(reversed(out))


class _Matcher:
    """Finds where a match ends, trying the longest (or shortest) stars first, as a regular expression does.

    What was tried in vain is remembered over all starts in the text, so that the time is bounded by the product of
    both lengths.
    """

    def __init__(self, items: list[Item], text: str, greedy: bool) -> None:
        self._items = items
        self._text = text
        self._greedy = greedy
        self._tried: set[int] = set()

    def match(self, start: int) -> int | None:
        """The end of the match that begins at `start`, None without one."""
        items, text, width = self._items, self._text, len(self._text) + 1
        stack = [(0, start)]
        while stack:
            index, position = stack.pop()
            while index < len(items) and items[index][0] != STAR and position < len(text):
                kind, wanted = items[index]
                if (text[position] == "\n") if kind == ANY else (text[position] != wanted):
                    break
                index += 1
                position += 1
            if index == len(items):
                # what lies behind this match is looked at afresh: the states on the way here were no failures
                self._tried.clear()
                return position
            state = index * width + position
            if items[index][0] != STAR or state in self._tried:
                continue
            self._tried.add(state)
            if len(self._tried) > _MOST_TRIED:
                raise BadPattern("there are too many ways to match it")
            onwards, longer = (index + 1, position), (index, position + 1)
            if position == len(text) or text[position] == "\n":
                stack.append(onwards)
            elif self._greedy:
                stack += [onwards, longer]
            else:
                stack += [longer, onwards]
        return None


def _template(template: str, match: str, most: int) -> str:
    """The replacement with Go's `$name` and `${name}` filled in; there are no groups, so only 0 has a value."""
    if "$" not in template:
        return template
    out: list[str] = []
    i = 0
    while i < len(template):
        if template[i] != "$":
            out.append(template[i])
            i += 1
            continue
        if template[i + 1 : i + 2] == "$":
            out.append("$")
            i += 2
            continue
        braces = template[i + 1 : i + 2] == "{"
        begin = i + 2 if braces else i + 1
        end = _while(template, begin, lambda c: c.isalpha() or c.isdecimal() or c == "_")
        if end == begin or (braces and template[end : end + 1] != "}"):
            out.append("$")
            i += 1
            continue
        if template[begin:end] == "0":
            out.append(match)
            most -= len(match)
            if most < 0:
                raise BadPattern(_TOO_LONG)
        i = end + 1 if braces else end
    return "".join(out)


def _while(text: str, position: int, holds: Callable[[str], bool]) -> int:
    while position < len(text) and holds(text[position]):
        position += 1
    return position
