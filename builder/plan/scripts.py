"""The shell scripts of RUN instructions, with the place in the Dockerfile of each of their characters.

What the shell gets is not what stands in the file: continued lines are joined, comments among them dropped, tabs of a
`<<-` here-document removed. A `Script` holds what the shell gets and finds its way back.
"""

from __future__ import annotations

from collections.abc import Sequence

from builder.dockerfile.instructions import CommandLine, Heredoc, Range
from builder.dockerfile.lines import continuation
from builder.dockerfile.text import SPACE
from builder.plan.dispatch import is_lone_heredoc

Position = tuple[int, int]
"""A line and a column, both counted from 1."""


class Script:
    """A script: its text, the comments among its lines (without `#`), and where everything comes from."""

    def __init__(self, text: str, rows: list[Row], comments: tuple[str, ...] = ()) -> None:
        self.text = text
        self.comments = comments
        self._rows = rows

    def position(self, line: int, column: int) -> Position | None:
        """The Dockerfile's position of one in the script; None if the script has no such line."""
        if not 1 <= line <= len(self._rows):
            return None
        return self._rows[line - 1].position(column)


class Row:
    """One line of a script, put together from pieces of the Dockerfile's lines: (first column in the row, position)."""

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


def find_script(source: str, lines: Range, command: CommandLine, escape: str = "\\") -> Script | None:
    """The script of a shell-form command whose instruction stands at `lines` of the Dockerfile `source`.

    A lone here-document is the script itself; other here-documents belong to the command that the shell runs. None for
    the exec form, and where the command cannot be found in its lines.
    """
    if not command.shell or not command.arguments or not command.arguments[0]:
        return None
    physical = source.removeprefix("\ufeff").split("\n")
    joined, row, last, comments = _logical_line(physical, lines.start, escape)
    line = command.arguments[0]
    if command.heredocs and is_lone_heredoc(command):
        (heredoc,) = command.heredocs
        return Script(heredoc.content, _heredoc_rows(physical, last + 1, heredoc), comments)
    joined = joined.rstrip(SPACE)
    if not joined.endswith(line):
        return None
    text, rows = line, [row.after(len(joined) - len(line))]
    for heredoc in command.heredocs:
        text += f"\n{heredoc.content}{heredoc.name}"
        rows += _heredoc_rows(physical, last + len(rows), heredoc)
    return Script(text, rows, comments)


def _logical_line(physical: list[str], start: int, escape: str) -> tuple[str, Row, int, tuple[str, ...]]:
    """The instruction's line with its continuations joined, where it comes from, its last line, its comments."""
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
    return joined, Row(pieces), number, tuple(comments)


def _heredoc_rows(physical: list[str], first: int, heredoc: Heredoc) -> list[Row]:
    """The rows of a here-document's content and of the line that ends it."""
    rows = []
    for number in range(first, first + heredoc.content.count("\n") + 1):
        line = physical[number - 1] if number <= len(physical) else ""
        tabs = len(line) - len(line.lstrip("\t")) if heredoc.chomp else 0
        rows.append(Row([(1, (number, tabs + 1))]))
    return rows
