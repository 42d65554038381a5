"""Where the characters of an instruction stand in the Dockerfile.

A logical line is put together from several physical ones: continued lines are joined, comments and empty lines among
them dropped. A `WrittenLine` holds the joined text and finds its way back.
"""

from __future__ import annotations

from collections.abc import Sequence

from builder.dockerfile.lines import continuation
from builder.dockerfile.text import SPACE

Position = tuple[int, int]
"""A line and a column, both counted from 1."""


class Row:
    """One line of text, put together from pieces of the Dockerfile's lines: (first column in the row, position)."""

    def __init__(self, pieces: Sequence[tuple[int, Position]]) -> None:
        self._pieces = pieces

    def position(self, column: int) -> Position:
        begin, (line, first) = self._pieces[0]
        for start, position in self._pieces[1:]:
            if start > column:
                break
            begin, (line, first) = start, position
        return line, first + max(column - begin, 0)

    def after(self, columns: int) -> Row:
        """The row without its first characters."""
        moved = [(start - columns, position) for start, position in self._pieces]
        kept = max((index for index, (start, _) in enumerate(moved) if start <= 1), default=0)
        start, (line, first) = moved[kept]
        return Row([(1, (line, first + 1 - start)), *moved[kept + 1 :]])


class WrittenLine:
    """An instruction's line: its text, where its characters come from, the number of its last physical line, and the
    comments that stand among those (without `#`)."""

    def __init__(self, text: str, row: Row, last: int, comments: tuple[str, ...]) -> None:
        self.text = text
        self.row = row
        self.last = last
        self.comments = comments


def physical_lines(source: str) -> list[str]:
    """The lines of a Dockerfile as the parser counts them. A carriage return at a line's end is part of it."""
    return source.removeprefix("\ufeff").split("\n")


def logical_line(physical: Sequence[str], start: int, escape: str) -> WrittenLine:
    """The instruction's line that begins at line `start` (from 1), without the white space before it."""
    raw = physical[start - 1].rstrip("\r")
    text = raw.lstrip(SPACE)
    pieces = [(1, (start, len(raw) - len(text) + 1))]
    joined, continued = continuation(text, escape)
    comments: list[str] = []
    number = start
    while continued and number < len(physical):
        number += 1
        text = physical[number - 1].rstrip("\r")
        stripped = text.lstrip(SPACE)
        if stripped.startswith("#"):
            comments.append(stripped[1:].strip(SPACE))
        elif stripped:
            text, continued = continuation(text, escape)
            pieces.append((len(joined) + 1, (number, 1)))
            joined += text
    return WrittenLine(joined, Row(pieces), number, tuple(comments))
