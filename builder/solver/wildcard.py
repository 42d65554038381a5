"""Shell patterns of COPY and ADD sources: Go's `filepath.Match`, where `*` and `?` stop at a slash."""

from __future__ import annotations

import re
from functools import lru_cache

from builder.errors import StepFailed
from builder.plan.paths import has_wildcards


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A regular expression that matches the whole path. Raises StepFailed for a malformed pattern."""
    out: list[str] = []
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            out.append("[^/]*")
        elif character == "?":
            out.append("[^/]")
        elif character == "[":
            expression, position = _character_class(pattern, position)
            out.append(expression)
        elif character == "\\":
            if position == len(pattern):
                raise _malformed(pattern)
            out.append(re.escape(pattern[position]))
            position += 1
        else:
            out.append(re.escape(character))
    return re.compile("".join(out), re.DOTALL)


def _character_class(pattern: str, position: int) -> tuple[str, int]:
    negated = pattern[position : position + 1] == "^"
    position += negated
    ranges: list[str] = []
    while True:
        if ranges and pattern[position : position + 1] == "]":
            break
        low, position = _class_character(pattern, position)
        high = low
        if pattern[position : position + 1] == "-":
            high, position = _class_character(pattern, position + 1)
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            ranges.append("")
    body = "".join(ranges)
    if not body:
        return ("[^/]" if negated else r"(?!)"), position + 1
    return f"(?!/)[{'^' if negated else ''}{body}]", position + 1


def _class_character(pattern: str, position: int) -> tuple[str, int]:
    character = pattern[position : position + 1]
    if character == "\\":
        position += 1
        character = pattern[position : position + 1]
    elif character in ("-", "]"):
        raise _malformed(pattern)
    if not character or position + 1 >= len(pattern):
        raise _malformed(pattern)
    return character, position + 1


def _malformed(pattern: str) -> StepFailed:
    return StepFailed(
        f"malformed pattern {pattern!r}", remedy="close each [ with ], or write \\[ for the character itself"
    )


def split(path: str) -> tuple[str, str]:
    """The components before the first one with a wildcard, and the rest ('' without wildcards)."""
    parts = [part for part in path.split("/") if part]
    for position, part in enumerate(parts):
        if has_wildcards(part):
            return "/".join(parts[:position]), "/".join(parts[position:])
    return "/".join(parts), ""
