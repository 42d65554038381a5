"""From the text of a Dockerfile to typed instructions.

    lines.Reader ──logical lines──▶ syntax.read_node ──parts──▶ assemble ──instructions──▶ stages

The parser follows BuildKit's frontend (frontend/dockerfile/parser, frontend/dockerfile/instructions): it accepts and
refuses the same texts, except that the first error in the file is reported first, and that non-ASCII flags are kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from builder.dockerfile import instructions as df
from builder.dockerfile.assemble import assemble
from builder.dockerfile.instruction_line import Line
from builder.dockerfile.lines import LinesError, LogicalLine, Reader, decode, parse_check_directive
from builder.dockerfile.notices import empty_continuation, instruction_notices, stage_notices
from builder.dockerfile.syntax import read_node
from builder.errors import DockerfileError


def parse(text: bytes | str, name: str = "Dockerfile") -> df.Dockerfile:
    """Parse a Dockerfile. `name` is what errors call it.

    Raises DockerfileError with the place (`Dockerfile:7`), what was expected, and an excerpt with the lines marked.
    """
    source = decode(text)
    try:
        return _parse(source)
    except LinesError as refused:
        from builder.dockerfile.excerpt import excerpt

        error, lines = refused.error, refused.lines
        error.place = f"{name}:{lines.start}"
        error.details = excerpt(source, lines)
        raise error from None


def parse_trigger(text: str, escape: str = "\\") -> df.StageInstruction:
    """Parse an ONBUILD trigger of a base image.

    `escape` is the escape character of the Dockerfile that is being built: as in BuildKit it counts for the words,
    while the trigger's own line is read with a backslash. The range is that of the trigger's text. Raises
    DockerfileError without a place: that is the FROM which brought the trigger.
    """
    try:
        reader = Reader(text)
        read = [instruction for _, instruction in _instructions(reader, escape)]
    except LinesError as refused:
        refused.error.cause = f"ONBUILD trigger {_first_line(text)!r}: {refused.error.cause}"
        raise refused.error from None
    if len(read) != 1:
        raise DockerfileError(f"ONBUILD trigger {_first_line(text)!r} should be a single instruction")
    (instruction,) = read
    if isinstance(instruction, df.From):
        raise DockerfileError(f"ONBUILD trigger {_first_line(text)!r}: FROM isn't allowed as an ONBUILD trigger")
    return instruction


def parse_changes(text: str) -> list[df.From | df.StageInstruction]:
    """Parse instructions without a stage, as docker takes them for `--change`: there may be none.

    Raises DockerfileError with the line that it is about as its place.
    """
    try:
        reader = Reader(text)
        return [instruction for _, instruction in _instructions(reader, reader.escape)]
    except LinesError as refused:
        refused.error.place = change_place(text.split("\n")[refused.lines.start - 1])
        raise refused.error from None


def change_place(source: str) -> str:
    """What errors about a change call it."""
    return f"--change {source!r}"


def _parse(source: str) -> df.Dockerfile:
    top = df.Range(1, 1)
    if not source:
        raise LinesError(DockerfileError("the Dockerfile cannot be empty", remedy="begin it with FROM image"), top)
    reader = Reader(source)
    _check_directives(reader.directives)
    global_args: list[df.Arg] = []
    stages: list[tuple[df.From, list[df.StageInstruction]]] = []
    notices: list[df.Notice] = []
    for line, instruction in _instructions(reader, reader.escape):
        if line.empty_continuation:
            notices.append(empty_continuation(line.range.end))
        notices += instruction_notices(instruction)
        if isinstance(instruction, df.From):
            stages.append((instruction, []))
        elif stages:
            stages[-1][1].append(instruction)
        elif isinstance(instruction, df.Arg):
            global_args.append(instruction)
        else:
            raise LinesError(
                DockerfileError(
                    f"no build stage in current context: {instruction.keyword[:60]} stands before the first FROM",
                    remedy="only ARG may stand before FROM",
                ),
                instruction.range,
            )
    if not stages:
        cause = "the Dockerfile contains no stages to build" if global_args else "the Dockerfile has no instructions"
        raise LinesError(DockerfileError(cause, remedy="expected FROM image"), df.Range(1, reader.line_count))
    built = tuple(df.Stage(from_, tuple(instructions)) for from_, instructions in stages)
    notices += stage_notices(built)
    return df.Dockerfile(reader.directives, tuple(global_args), built, reader.escape, tuple(notices))


def _check_directives(directives: tuple[df.Directive, ...]) -> None:
    for directive in directives:
        if directive.name == "check":
            try:
                parse_check_directive(directive.value)
            except DockerfileError as error:
                raise LinesError(error, directive.range) from None


def _instructions(reader: Reader, escape: str) -> Iterator[tuple[LogicalLine, df.From | df.StageInstruction]]:
    """The instructions, with here-documents read. `escape` is that of words; the reader has that of lines."""
    while (line := reader.next_line()) is not None:
        try:
            node = read_node(line.text, reader.escape)
            heredocs = _heredocs(line, reader) if node.takes_heredocs and "<<" in line.text else ()
            where = df.Range(line.range.start, reader.position)
            made = assemble(Line(node, line.text, where, escape, line.comments, heredocs))
        except DockerfileError as error:
            raise LinesError(error, df.Range(line.range.start, reader.position)) from None
        yield line, made


def _heredocs(line: LogicalLine, reader: Reader) -> tuple[df.Heredoc, ...]:
    """The here-documents that a line begins, read."""
    from builder.dockerfile.heredocs import find_heredocs

    return tuple(
        msgspec.structs.replace(heredoc, content=reader.here_document(heredoc.name, heredoc.chomp, line.range.start))
        for heredoc in find_heredocs(line.text)
    )


def _first_line(text: str) -> str:
    line = text.split("\n", 1)[0]
    return line if len(line) <= 60 else line[:59] + "…"
