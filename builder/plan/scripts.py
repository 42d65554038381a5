"""The shell scripts of RUN instructions, with the place in the Dockerfile of each of their characters.

What the shell gets is not what stands in the file: continued lines are joined, comments among them dropped, tabs of a
`<<-` here-document removed. A `Script` holds what the shell gets and finds its way back.
"""

from __future__ import annotations

from collections.abc import Sequence

from builder.dockerfile.instructions import CommandLine, Heredoc, Range
from builder.dockerfile.located import Position, Row, logical_line
from builder.dockerfile.text import SPACE
from builder.plan.dispatch import is_lone_heredoc


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


def find_script(physical: Sequence[str], lines: Range, command: CommandLine, escape: str = "\\") -> Script | None:
    """The script of a shell-form command whose instruction stands at `lines` of a Dockerfile, of which `physical` are
    all lines (`physical_lines`).

    A lone here-document is the script itself; other here-documents belong to the command that the shell runs. None for
    the exec form, and where the command cannot be found in its lines.
    """
    if not command.shell or not command.arguments or not command.arguments[0]:
        return None
    written = logical_line(physical, lines.start, escape)
    line = command.arguments[0]
    if command.heredocs and is_lone_heredoc(command):
        (heredoc,) = command.heredocs
        rows = _heredoc_rows(physical, written.last + 1, heredoc, lone=True)
        return Script(heredoc.content, rows, written.comments)
    joined = written.text.rstrip(SPACE)
    if not joined.endswith(line):
        return None
    text, rows = line, [written.row.after(len(joined) - len(line))]
    for heredoc in command.heredocs:
        text += f"\n{heredoc.content}{heredoc.name}"
        rows += _heredoc_rows(physical, written.last + len(rows), heredoc, lone=False)
    return Script(text, rows, written.comments)


def _heredoc_rows(physical: Sequence[str], first: int, heredoc: Heredoc, *, lone: bool) -> list[Row]:
    """The rows of a here-document's content, of which only a lone one has lost its tabs, and of the line that ends
    it."""
    rows = []
    last = first + heredoc.content.count("\n")
    for number in range(first, last + 1):
        line = physical[number - 1] if number <= len(physical) else ""
        tabs = len(line) - len(line.lstrip("\t")) if heredoc.chomp and (lone or number == last) else 0
        rows.append(Row([(1, (number, tabs + 1))]))
    return rows
