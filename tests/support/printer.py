"""From typed instructions back to the text of a Dockerfile, in one canonical layout.

What `parser.parse` makes of the printed text equals what was printed, apart from ranges, `source` and the notices
about the layout. Continued lines are folded into one (and broken again only where the parser's limit demands it), flags
come in a fixed order, here-documents lose the tabs of `<<-`. Words stand as they were written: how a word is quoted can
decide how it expands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from builder.dockerfile import instructions as df
from builder.dockerfile.heredocs import find_heredocs
from builder.dockerfile.lines import MAXIMUM_LINE, continuation
from builder.dockerfile.text import SPACE
from builder.dockerfile.words import Word, parse_word

_PLAIN = re.compile(r"[^\t\n\v\f\r ]+")
_FLAG_SPECIAL = re.compile(rf"['\"{SPACE}]")
_BARE_DELIMITER = re.compile(r"[\w.]+")
_STYLES = ("needed", "always", "escapes")
_UNITS = (("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1))


def print_dockerfile(dockerfile: df.Dockerfile) -> str:
    """The text of a Dockerfile. An instruction whose text ends with the escape character must be the last one, as the
    parser can only have found it there."""
    head = [f"# {directive.name}={directive.value}\n" for directive in dockerfile.directives]
    blocks = ["".join(head)] if head else []
    if dockerfile.global_args:
        blocks.append("".join(print_instruction(argument, dockerfile.escape) for argument in dockerfile.global_args))
    for stage in dockerfile.stages:
        instructions = (stage.from_, *stage.instructions)
        blocks.append("".join(print_instruction(instruction, dockerfile.escape) for instruction in instructions))
    text = "\n".join(blocks)
    # an empty line ends the directives, so that no comment is taken for one
    return f"\n{text}" if text.startswith("#") and not head else text


def print_instruction(instruction: df.From | df.StageInstruction, escape: str = "\\") -> str:
    """The lines of one instruction, with the comments above it and its here-documents."""
    comments = "".join(f"# {comment}\n" for comment in instruction.comments)
    if isinstance(instruction, df.OnBuild):
        line, newline, documents = f"{instruction.keyword} {instruction.trigger}".partition("\n")
        return f"{comments}{_physical(line, escape)}{documents}{newline}"
    line = _logical(instruction, escape)
    return comments + _physical(line, escape) + "".join(_documents(instruction, line))


def _logical(instruction: df.From | df.StageInstruction, escape: str) -> str:
    """The logical line. Here-documents are looked for in all of it, by rules of quoting that are not those of flags, so
    how a flag is quoted can hide one, or show one that is none."""
    body = _BODIES[type(instruction)](instruction, escape)
    lines = []
    for style in _STYLES:
        flags = [_flag(name, value, escape, style) for name, value in _flags(instruction)]
        if body.startswith("--"):
            flags.append("--")  # ends the flags
        lines.append(" ".join(part for part in (instruction.keyword, *flags, body) if part))
        if _shows_heredocs(instruction, lines[-1]):
            return lines[-1]
    return lines[0]


def _physical(line: str, escape: str) -> str:
    """A logical line as lines of the file."""
    text = ""
    while len(line) * 4 > MAXIMUM_LINE and len(line.encode("utf-8", "surrogatepass")) > MAXIMUM_LINE:
        end = _break(line, escape)
        text += f"{line[:end]}{escape}\n"
        line = line[end:]
    if continuation(line, escape)[1]:
        line = (line if line.endswith((" ", "\t")) else f"{line} ") + escape
    return f"{text}{line}\n"


def _break(line: str, escape: str) -> int:
    """Where a line can be continued on the next: not behind an escape character, and not in front of what would make
    the next line look empty or like a comment."""
    room = len(line.encode("utf-8", "surrogatepass")[: MAXIMUM_LINE - 1].decode("utf-8", "ignore"))
    good = (end for end in range(room, 0, -1) if line[end - 1] != escape and line[end] not in f"{SPACE}#")
    return next(good, room)


# --- flags

_Flags = Iterator[tuple[str, str | None]]


def _flags(instruction: df.From | df.StageInstruction) -> _Flags:
    """The flags of an instruction: name and value, None for a boolean that is only named."""
    if isinstance(instruction, df.From):
        yield from _given("platform", instruction.platform)
    elif isinstance(instruction, df.Run):
        yield from _each("mount", instruction.mounts)
        if instruction.network != "default":
            yield "network", instruction.network
        if instruction.security != "sandbox":
            yield "security", instruction.security
        yield from _each("device", instruction.devices)
    elif isinstance(instruction, df.Copy):
        if instruction.from_:
            yield "from", instruction.from_
        yield from _file_flags(instruction)
        if instruction.parents:
            yield "parents", None
    elif isinstance(instruction, df.Add):
        yield from _given("checksum", instruction.checksum)
        yield from _file_flags(instruction)
        for name, value in (("keep-git-dir", instruction.keep_git_dir), ("unpack", instruction.unpack)):
            if value is not None:
                yield name, str(value).lower()
    elif isinstance(instruction, df.HealthCheck):
        for name in ("interval", "timeout", "start_period", "start_interval"):
            if getattr(instruction, name):
                yield name.replace("_", "-"), _duration(getattr(instruction, name))
        if instruction.retries:
            yield "retries", str(instruction.retries)


def _file_flags(instruction: df.Copy | df.Add) -> _Flags:
    yield from _given("chown", instruction.chown)
    yield from _given("chmod", instruction.chmod)
    if instruction.link:
        yield "link", None
    yield from _each("exclude", instruction.excludes)


def _given(name: str, word: Word | None) -> _Flags:
    if word is not None:
        yield name, word.source


def _each(name: str, words: Iterable[Word]) -> _Flags:
    for word in words:
        yield name, word.source


def _flag(name: str, value: str | None, escape: str, style: str) -> str:
    """A flag, its value quoted if it must be: quotes and escapes in flags are gone before the value is a word."""
    if value is None:
        return f"--{name}"
    needed = _FLAG_SPECIAL.search(value) is not None or escape in value
    return f"--{name}={_quoted(value, escape, style) if needed or style == 'always' else value}"


def _quoted(value: str, escape: str, style: str) -> str:
    if style == "escapes":
        return re.sub(rf"(['\"{SPACE}{re.escape(escape)}])", lambda match: escape + match[0], value)
    doubled = value.replace(escape, escape * 2)
    if "'" in value and not re.search(r'["$\\`]', value):
        return f'"{doubled}"'
    return "'" + doubled.replace("'", """'"'"'""") + "'"  # as for a shell


def _duration(nanoseconds: int) -> str:
    unit, size = next((unit, size) for unit, size in _UNITS if nanoseconds % size == 0)
    return f"{nanoseconds // size}{unit}"


# --- bodies


def _from(instruction: df.From, escape: str) -> str:
    name = f" {instruction.as_keyword} {instruction.name}" if instruction.name else ""
    return instruction.image.source + name


def _command(instruction: df.Run | df.Cmd | df.Entrypoint, escape: str) -> str:
    return _command_line(instruction.command)


def _command_line(command: df.CommandLine) -> str:
    return command.arguments[0] if command.shell else _json(command.arguments)


def _json(items: Sequence[str]) -> str:
    return json.dumps(items, ensure_ascii=False)


def _files(instruction: df.Copy | df.Add, escape: str) -> str:
    # here-documents first: what begins with a bracket could be read as JSON
    inline = [_marker(source, instruction.inline) for source in instruction.inline]
    words = [*inline, *(word.source for word in instruction.sources), instruction.destination.source]
    return _list(words)


def _list(words: Sequence[str]) -> str:
    """Words between blanks, or a JSON array where that does not give the same words."""
    text = " ".join(words)
    plain = all(_PLAIN.fullmatch(word) for word in words) and text == text.strip(SPACE) and not text.startswith("[")
    return text if plain else _json(words)


def _marker(source: df.InlineSource, among: Sequence[df.InlineSource]) -> str:
    """What begins a here-document: `<<NAME`, or `<<"NAME"` where its text must not be expanded."""
    content = source.content
    # two of one name share a text, of which the one without tabs was read with <<-
    chomp = "-" if content.source != _shared_text(source.path, among) else ""
    quoted = parse_word(content.source, mode="body") != content
    if quoted:
        name = re.sub(r'(["$\\])', r"\\\1", source.path)
        return f'<<{chomp}"{name}"'
    bare = _BARE_DELIMITER.fullmatch(source.path)
    return f"<<{chomp}" + (source.path if bare else re.sub(r"([^\w.])", r"\\\1", source.path))


def _shared_text(name: str, among: Sequence[df.InlineSource]) -> str:
    return max((source.content.source for source in among if source.path == name), key=len)


def _pairs(instruction: df.Env | df.Label, escape: str) -> str:
    if instruction.pairs[0].legacy:
        key, value = instruction.pairs[0].key.source, instruction.pairs[0].value.source
        # one blank behind an escape character would be escaped, and the name go on
        return f"{key}{'  ' if key.endswith(escape) else ' '}{value}"
    return " ".join(f"{pair.key.source}={pair.value.source}" for pair in instruction.pairs)


def _arguments(instruction: df.Arg, escape: str) -> str:
    return " ".join(
        f"{pair.key.source}={pair.value.source}" if pair.given else pair.key.source for pair in instruction.pairs
    )


def _health_check(instruction: df.HealthCheck, escape: str) -> str:
    return "NONE" if instruction.test is None else f"CMD {_command_line(instruction.test)}"


_BODIES: dict[type[df.Instruction], Callable[..., str]] = {
    df.From: _from,
    df.Run: _command,
    df.Cmd: _command,
    df.Entrypoint: _command,
    df.Copy: _files,
    df.Add: _files,
    df.Env: _pairs,
    df.Label: _pairs,
    df.Arg: _arguments,
    df.HealthCheck: _health_check,
    df.Expose: lambda instruction, escape: " ".join(word.source for word in instruction.ports),
    df.Volume: lambda instruction, escape: _list([word.source for word in instruction.paths]),
    df.Workdir: lambda instruction, escape: instruction.path.source,
    df.User: lambda instruction, escape: instruction.user.source,
    df.StopSignal: lambda instruction, escape: instruction.signal.source,
    df.Shell: lambda instruction, escape: _json(instruction.shell),
    df.Maintainer: lambda instruction, escape: instruction.name,
}
"""How each instruction's body is written; the second argument is the escape character."""


# --- here-documents


def _documents(instruction: df.From | df.StageInstruction, line: str) -> Iterator[str]:
    """The texts of the here-documents that the parser will look for below `line`."""
    if isinstance(instruction, df.Run):
        for heredoc in instruction.command.heredocs:
            yield f"{heredoc.content}{heredoc.name}\n"
    elif isinstance(instruction, (df.Copy, df.Add)):
        found = find_heredocs(line) if not _is_json(instruction) else ()
        names = [heredoc.name for heredoc in found]
        texts = {source.path: _shared_text(source.path, instruction.inline) for source in instruction.inline}
        for number, heredoc in enumerate(found):
            # of several with one name the last one counts; a word that only looks like one has no text
            text = texts.get(heredoc.name, "") if heredoc.name not in names[number + 1 :] else ""
            yield f"{text}{heredoc.name}\n"


def _shows_heredocs(instruction: df.From | df.StageInstruction, line: str) -> bool:
    """Whether the parser finds in `line` the here-documents that the instruction has."""
    if "<<" not in line or not isinstance(instruction, (df.Run, df.Copy, df.Add)):
        return True
    found = [heredoc.name for heredoc in find_heredocs(line)]
    if isinstance(instruction, df.Run):
        return not instruction.command.shell or found == [heredoc.name for heredoc in instruction.command.heredocs]
    return _is_json(instruction) or all(source.path in found for source in instruction.inline if source.content.source)


def _is_json(instruction: df.Copy | df.Add) -> bool:
    return _files(instruction, "").startswith("[")
