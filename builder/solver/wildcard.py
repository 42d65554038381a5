"""Shell patterns of COPY and ADD sources: Go's `filepath.Match`, where `*` and `?` stop at a slash."""

from __future__ import annotations

import re
from functools import lru_cache

from builder.errors import StepFailed
from builder.plan.paths import has_wildcards


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A regular expression that matches the whole path. Raises StepFailed for a malformed pattern."""
    components: list[list[str]] = [[""]]  # of each component the pieces between its stars
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            components[-1].append("")
            continue
        if character == "?":
            expression = "[^/]"
        elif character == "[":
            expression, position = _character_class(pattern, position)
        else:
            if character == "\\":
                if position == len(pattern):
                    raise _malformed(pattern)
                character = pattern[position]
                position += 1
            if character == "/":
                components.append([""])
                continue
            expression = re.escape(character)
        components[-1][-1] += expression
    return re.compile("/".join(map(_component, components)), re.DOTALL)


def _component(pieces: list[str]) -> str:
    """The expression of one component. Pieces have a fixed length, so that the first place at which one fits is as good
    as any other, but for the last one: atomic groups keep a pattern with many stars from taking exponential time."""
    first, *others = pieces
    if not others:
        return first
    return first + "".join(f"(?>[^/]*?{piece})" for piece in others[:-1]) + f"[^/]*{others[-1]}"


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
