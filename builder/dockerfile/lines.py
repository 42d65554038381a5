"""The lines of a Dockerfile: directives, comments, continuations and here-documents (BuildKit's parser/parser.go)."""

from __future__ import annotations

import re

import msgspec

from builder.dockerfile.instructions import Directive, Range
from builder.dockerfile.text import SPACE, did_you_mean, quote
from builder.errors import DockerfileError

MAXIMUM_LINE = 65535
"""Bytes of a physical line that BuildKit's scanner takes."""

# Patterns as text, which `re` compiles with their first use: few Dockerfiles need them all.
_DIRECTIVE = r"#[^\S\n]*([a-zA-Z][a-zA-Z0-9]*)[\t\n\f\r ]*=[\t\n\f\r ]*([^\n]+?)[\t\n\f\r ]*\Z"
_DIRECTIVES = ("check", "escape", "syntax")
_CONTINUED = {"\\": r"(?<!\\)\\[ \t]*\Z", "`": r"(?<!`)`[ \t]*\Z"}
_SURROGATE = "[\ud800-\udfff]"


class LinesError(Exception):
    """A refusal with the lines it is about; `parser` turns it into a DockerfileError."""

    def __init__(self, error: DockerfileError, lines: Range) -> None:
        super().__init__(error.cause)
        self.error = error
        self.lines = lines


class LogicalLine(msgspec.Struct, frozen=True):
    """One instruction's line: continuations joined, comments out. `comments` stood above it, without their `#`.

    `empty_continuation` tells that a blank line stood between continued lines.
    """

    text: str
    range: Range
    comments: tuple[str, ...] = ()
    empty_continuation: bool = False


class Reader:
    """Reads logical lines, and on request the here-documents that follow one. Raises LinesError."""

    def __init__(self, text: str) -> None:
        """`text` may hold lone surrogates for bytes that were not UTF-8: outside of comments they are refused."""
        self._lines = text.removeprefix("\ufeff").split("\n")
        self._ends_with_newline = not self._lines[-1]
        if self._ends_with_newline:
            self._lines.pop()
        self._next = 0
        self.escape = "\\"
        self._directives: list[Directive] = []
        self._read_directives()

    @property
    def directives(self) -> tuple[Directive, ...]:
        return tuple(self._directives)

    @property
    def position(self) -> int:
        """The number of the line read last."""
        return self._next

    @property
    def line_count(self) -> int:
        return len(self._lines)

    def _read_directives(self) -> None:
        """Directives are the first lines of the file; the first line that is none ends them.

        After a `#!` line only `syntax` and `check` are looked for, as BuildKit does.
        """
        shebang = bool(self._lines) and self._lines[0].startswith("#!")
        seen: set[str] = set()
        for number, line in enumerate(self._lines[shebang:], 1 + shebang):
            line = line.rstrip("\r").lstrip(SPACE)
            match = re.match(_DIRECTIVE, line) if line.startswith("#") else None
            name = match[1].lower() if match else ""
            if not match or name not in _DIRECTIVES:
                return
            where = Range(number, number)
            if shebang and (name in seen or name == "escape"):
                continue
            if name in seen:
                raise LinesError(
                    DockerfileError(f"only one {name} parser directive can be used", remedy="remove one of them"), where
                )
            seen.add(name)
            value = re.sub(_SURROGATE, "\ufffd", match[2])
            if name == "escape":
                if value not in ("\\", "`"):
                    raise LinesError(
                        DockerfileError(
                            f"invalid escape token {quote(value)}", remedy="expected `# escape=\\` or `# escape=``"
                        ),
                        where,
                    )
                self.escape = value
            self._directives.append(Directive(name, value, where))

    def next_line(self) -> LogicalLine | None:
        """The next logical line, None at the end."""
        comments: list[str] = []
        while self._next < len(self._lines):
            start = self._next + 1
            raw = self._physical()
            line = raw.rstrip("\r").lstrip(SPACE)
            if line.startswith("#"):
                if not self._is_directive(start):
                    # an indented comment keeps its `#`, as in BuildKit
                    comment = re.sub(_SURROGATE, "\ufffd", raw[1:].strip(SPACE))
                    comments = [*comments, comment] if comment else []
                continue
            line, continued = continuation(line, self.escape)
            if not line and not continued:
                continue
            pieces, empty = [line], False
            while continued and self._next < len(self._lines):
                raw = self._physical()
                line = raw.rstrip("\r")
                stripped = line.lstrip(SPACE)
                if stripped.startswith("#"):
                    continue
                if not stripped:
                    empty = True
                    continue
                line, continued = continuation(line, self.escape)
                pieces.append(line)
            text = "".join(pieces)
            self._check(text, start)
            if "\0" in text:
                raise LinesError(no_nul(), Range(start, self._next))
            return LogicalLine(text, Range(start, self._next), tuple(comments), empty)
        return None

    def here_document(self, name: str, chomp: bool, start: int) -> str:
        """The text up to a line that is `name` (after leading tabs with `chomp`), with its line ends as they are.

        `start` is the line of the instruction, for the error when the end of the file comes first.
        """
        content: list[str] = []
        while self._next < len(self._lines):
            raw = self._physical()
            candidate = raw.rstrip("\r")
            if (candidate.lstrip("\t") if chomp else candidate) == name:
                text = "".join(content)
                self._check(text, start)
                return text
            content.append(raw)
            if self._next < len(self._lines) or self._ends_with_newline:
                content.append("\n")
        raise LinesError(
            DockerfileError(
                f"unterminated heredoc: no line is {quote(name)}",
                remedy=f"end it with a line that holds {name} and nothing else",
            ),
            Range(start, self._next),
        )

    def _physical(self) -> str:
        line = self._lines[self._next]
        self._next += 1
        if len(line) * 4 > MAXIMUM_LINE and len(line.encode("utf-8", "surrogatepass")) > MAXIMUM_LINE:
            raise LinesError(
                DockerfileError(
                    f"the line is longer than {MAXIMUM_LINE} bytes",
                    remedy="split it with the escape character at its end",
                ),
                Range(self._next, self._next),
            )
        return line

    def _is_directive(self, number: int) -> bool:
        return any(directive.range.start == number for directive in self._directives)

    def _check(self, text: str, start: int) -> None:
        if not text.isascii() and re.search(_SURROGATE, text):
            raise LinesError(
                DockerfileError("the text is not valid UTF-8", remedy="save the Dockerfile as UTF-8"),
                Range(start, self._next),
            )


def no_nul() -> DockerfileError:
    """BuildKit takes NUL bytes and fails where the kernel does: no path, argument or variable can hold one."""
    return DockerfileError("there is a NUL byte, which nothing on a system can hold", remedy="remove it")


def continuation(line: str, escape: str) -> tuple[str, bool]:
    """The line without the escape character at its end, and whether it had one."""
    match = re.search(_CONTINUED[escape], line) if escape in line else None
    return (line[: match.start()], True) if match else (line, False)


def decode(data: str | bytes) -> str:
    """The text of a Dockerfile. Bytes that are not UTF-8 become lone surrogates, which `Reader` takes in comments."""
    return data if isinstance(data, str) else data.decode("utf-8", "surrogateescape")


class CheckOptions(msgspec.Struct, frozen=True):
    """The `check` directive: rules not to report, experimental rules to report, and whether any report is an error."""

    skip: tuple[str, ...] = ()
    skip_all: bool = False
    experimental: tuple[str, ...] = ()
    experimental_all: bool = False
    error: bool = False


def parse_check_directive(text: str) -> CheckOptions:
    """The value of `# check=`, which ends at its first space. Raises as `parse_check_options`."""
    return parse_check_options(text.split(" ", 1)[0])


def parse_check_options(text: str) -> CheckOptions:
    """`skip=A,B;experimental=all;error=true`, with spaces around words (`ParseLintOptions` of `linter.go`).

    Raises DockerfileError (without a place).
    """
    from builder.dockerfile.values import parse_boolean

    found: dict[str, tuple[str, ...]] = {}
    error = False
    value = text.strip(SPACE)
    for option in value.split(";", 2) if value else ():
        name, equals, setting = (part.strip(SPACE) for part in option.partition("="))
        if not equals or name not in ("skip", "experimental", "error"):
            raise DockerfileError(
                f"invalid check option {quote(option)}{did_you_mean(name, ('skip', 'experimental', 'error'))}",
                remedy="expected skip=RULE,…|all, experimental=RULE,…|all or error=true, separated by semicolons",
            )
        if name == "error":
            try:
                error = parse_boolean(setting)
            except ValueError as problem:
                raise DockerfileError(f"invalid check option {quote(option)}: {problem}") from None
        else:
            found[name] = tuple(rule.strip(SPACE) for rule in setting.split(","))
    skip, experimental = found.get("skip", ()), found.get("experimental", ())
    return CheckOptions(
        skip=() if skip == ("all",) else skip,
        skip_all=skip == ("all",),
        experimental=() if experimental == ("all",) else experimental,
        experimental_all=experimental == ("all",),
        error=error,
    )
