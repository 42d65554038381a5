"""COPY and ADD from their lines. The rules are those of BuildKit's frontend/dockerfile/instructions/parse.go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.dockerfile import instructions as df
from builder.dockerfile.flags import Flags
from builder.dockerfile.heredocs import chomp_tabs, is_heredoc
from builder.dockerfile.instruction_line import Line
from builder.dockerfile.words import expand, literal, parse_word
from builder.errors import DockerfileError

if TYPE_CHECKING:  # making such a class compiles all that it states
    from typing import TypedDict

    from builder.dockerfile.words import Word

    class Files(TypedDict):
        """What COPY and ADD share."""

        sources: tuple[Word, ...]
        inline: tuple[df.InlineSource, ...]
        destination: Word
        chown: Word | None
        chmod: Word | None
        link: bool
        excludes: tuple[Word, ...]


def copy(line: Line) -> df.Copy:
    _needs_destination(line)
    flags = line.flags()
    from_ = flags.one("from")
    if from_ and expand(line.word(from_), {}).text != from_:
        raise DockerfileError(
            "variable expansion is not supported for --from",
            remedy="define a stage with FROM, using an ARG from before the first FROM, and copy from that stage",
        )
    return df.Copy(**line.common(), **_files(line, flags), from_=from_, parents=bool(flags.boolean("parents")))


def add(line: Line) -> df.Add:
    _needs_destination(line)
    flags = line.flags()
    return df.Add(
        **line.common(),
        **_files(line, flags),
        checksum=line.optional(flags.one("checksum")),
        keep_git_dir=flags.boolean("keep-git-dir"),
        unpack=flags.boolean("unpack"),
    )


def _needs_destination(line: Line) -> None:
    if len(line.arguments) < 2:
        raise DockerfileError(
            f"{line.name} requires at least two arguments, a source and a destination",
            remedy=f"expected {line.name} SOURCE… DESTINATION",
        )


def _files(line: Line, flags: Flags) -> Files:
    *sources, destination = line.arguments
    if is_heredoc(destination):
        raise DockerfileError(
            f"{line.name} cannot accept a heredoc as a destination", remedy="put the destination behind the heredoc"
        )
    contents = {heredoc.name: heredoc.content for heredoc in line.heredocs}
    inline: list[df.InlineSource] = []
    paths: list[str] = []
    for source in sources:
        heredoc = is_heredoc(source)
        if heredoc is None:
            paths.append(source)
            continue
        text = contents.get(heredoc.name, "")
        text = chomp_tabs(text) if heredoc.chomp else text
        # the escape character in a here-document is always the backslash
        content = parse_word(text, mode="body") if heredoc.expand else literal(text)
        inline.append(df.InlineSource(heredoc.name, content))
    return {
        "sources": line.words(paths),
        "inline": tuple(inline),
        "destination": line.word(destination),
        "chown": line.optional(flags.one("chown")),
        "chmod": line.optional(flags.one("chmod")),
        "link": bool(flags.boolean("link")),
        "excludes": tuple(literal(pattern) for pattern in flags.all("exclude")),
    }
