"""A line of a Dockerfile as an instruction is made from it: its parts, and what several instructions ask of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from builder.dockerfile import instructions as df
from builder.dockerfile.flags import Flags
from builder.dockerfile.syntax import Node
from builder.dockerfile.text import SPACE
from builder.dockerfile.words import Word, parse_word
from builder.errors import DockerfileError

if TYPE_CHECKING:  # making such a class compiles all that it states
    from typing import TypedDict

    class Common(TypedDict):
        """The fields that all instructions have."""

        source: str
        range: df.Range
        keyword: str
        comments: tuple[str, ...]


class Line(msgspec.Struct, frozen=True):
    """Everything an instruction is made of. `text` is the logical line, `escape` the escape character for its words."""

    node: Node
    text: str
    range: df.Range
    escape: str
    comments: tuple[str, ...] = ()
    heredocs: tuple[df.Heredoc, ...] = ()

    @property
    def name(self) -> str:
        return self.node.instruction.upper()

    @property
    def arguments(self) -> tuple[str, ...]:
        return self.node.arguments

    def common(self) -> Common:
        return {
            "source": self.text.strip(SPACE),
            "range": self.range,
            "keyword": self.node.keyword,
            "comments": self.comments,
        }

    def flags(self) -> Flags:
        return Flags(self.node.instruction, self.node.flags)

    def word(self, text: str) -> Word:
        return parse_word(text, self.escape)

    def optional(self, text: str) -> Word | None:
        return self.word(text) if text else None

    def words(self, texts: Iterable[str]) -> tuple[Word, ...]:
        return tuple(self.word(text) for text in texts)


def at_least_one(line: Line, expected: str) -> None:
    """Refuse a line without arguments. `expected` is what belongs there, for the remedy."""
    if not line.arguments:
        raise DockerfileError(f"{line.name} requires at least one argument", remedy=f"expected {line.name} {expected}")


def exactly_one(line: Line, expected: str) -> str:
    """The only argument of a line, which is refused if it has none or several."""
    if len(line.arguments) != 1:
        raise DockerfileError(f"{line.name} requires exactly one argument", remedy=f"expected {line.name} {expected}")
    return line.arguments[0]


def command(line: Line, arguments: tuple[str, ...]) -> df.CommandLine:
    """Exec form, or shell form with the rest of the line as it is (nothing, if nothing was written)."""
    if line.node.json:
        return df.CommandLine(arguments, shell=False)
    text = " ".join(arguments)
    return df.CommandLine((text,), shell=True, heredocs=_chomped(text, line.heredocs))


def _chomped(text: str, heredocs: tuple[df.Heredoc, ...]) -> tuple[df.Heredoc, ...]:
    """The here-documents without the tabs of `<<-` where nobody else takes them away: beside a command the shell does,
    as in BuildKit (`dispatchRun`)."""
    if len(heredocs) != 1 or not heredocs[0].chomp:
        return heredocs
    from builder.dockerfile.heredocs import chomp_tabs, is_heredoc

    (heredoc,) = heredocs
    if not is_heredoc(text.strip(SPACE)):
        return heredocs
    return (msgspec.structs.replace(heredoc, content=chomp_tabs(heredoc.content)),)
