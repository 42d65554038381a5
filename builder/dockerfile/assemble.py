"""From a line's parts to a typed instruction: what each instruction takes and refuses.

The rules are those of BuildKit's frontend/dockerfile/instructions/parse.go. All errors are DockerfileErrors without a
place; `parser` adds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from builder.dockerfile import instructions as df
from builder.dockerfile.flags import Flags
from builder.dockerfile.syntax import INSTRUCTIONS, Node
from builder.dockerfile.text import SPACE, did_you_mean, quote
from builder.dockerfile.words import Word, expand, literal, parse_word
from builder.errors import DockerfileError

if TYPE_CHECKING:  # making such a class compiles all that it states
    from typing import TypedDict

    class Common(TypedDict):
        """The fields that all instructions have."""

        source: str
        range: df.Range
        keyword: str
        comments: tuple[str, ...]

    class Files(TypedDict):
        """What COPY and ADD share."""

        sources: tuple[Word, ...]
        inline: tuple[df.InlineSource, ...]
        destination: Word
        chown: Word | None
        chmod: Word | None
        link: bool
        excludes: tuple[Word, ...]


_STAGE_NAME = r"[a-z][a-z0-9._-]*\Z"
_ONBUILD = r"(?i)[\t\n\f\r ]*ONBUILD[\t\n\f\r ]*"
_MILLISECOND = 10**6
_NETWORKS = ("default", "host", "none")
_SECURITIES = ("insecure", "sandbox")


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


def assemble(line: Line) -> df.From | df.StageInstruction:
    """The instruction that a line holds."""
    make = _MAKERS.get(line.node.instruction)
    if make is None:
        keyword = line.node.keyword
        if not keyword:
            raise DockerfileError("the continued line holds no instruction", remedy="remove it")
        raise DockerfileError(
            f"unknown instruction: {keyword[:60]}{did_you_mean(keyword, INSTRUCTIONS, fold=True)}",
            remedy=f"expected one of {', '.join(INSTRUCTIONS)}",
        )
    return make(line)


def _at_least_one(line: Line, expected: str) -> None:
    if not line.arguments:
        raise DockerfileError(f"{line.name} requires at least one argument", remedy=f"expected {line.name} {expected}")


def _exactly_one(line: Line, expected: str) -> str:
    if len(line.arguments) != 1:
        raise DockerfileError(f"{line.name} requires exactly one argument", remedy=f"expected {line.name} {expected}")
    return line.arguments[0]


def _from(line: Line) -> df.From:
    arguments = line.arguments
    if len(arguments) not in (1, 3):
        raise DockerfileError(
            "FROM requires either one or three arguments", remedy="expected FROM image or FROM image AS name"
        )
    name = arguments[2] if len(arguments) == 3 else ""
    if name and not re.match(_STAGE_NAME, name.lower()):
        raise DockerfileError(
            f"invalid name for build stage: {quote(name)}",
            remedy="a name begins with a letter and goes on with letters, digits, '-', '_' and '.'",
        )
    flags = line.flags()
    return df.From(
        **line.common(),
        image=line.word(arguments[0]),
        platform=line.optional(flags.one("platform")),
        name=name,
        as_keyword=arguments[1] if name else "",
    )


def _command(line: Line, arguments: tuple[str, ...]) -> df.CommandLine:
    """Exec form, or shell form with the rest of the line as it is (nothing, if nothing was written)."""
    if line.node.json:
        return df.CommandLine(arguments, shell=False)
    return df.CommandLine((" ".join(arguments),), shell=True, heredocs=tuple(_chomped(h) for h in line.heredocs))


def _chomped(heredoc: df.Heredoc) -> df.Heredoc:
    if not heredoc.chomp:
        return heredoc
    from builder.dockerfile.heredocs import chomp_tabs

    return msgspec.structs.replace(heredoc, content=chomp_tabs(heredoc.content))


def _mounts(line: Line, flags: Flags) -> tuple[Word, ...]:
    devices, mounts = flags.all("device"), flags.all("mount")
    if not devices and not mounts:
        return ()
    from builder.dockerfile.mounts import check_device, mount_word

    for device in devices:
        check_device(device)
    return tuple(mount_word(text, line.escape) for text in mounts)


def _run(line: Line) -> df.Run:
    flags = line.flags()
    mounts = _mounts(line, flags)
    return df.Run(
        **line.common(),
        command=_command(line, line.arguments),
        mounts=mounts,
        network=_one_of("network mode", flags.one("network", "default"), _NETWORKS),
        security=_one_of("security", flags.one("security", "sandbox"), _SECURITIES),
        devices=tuple(literal(text) for text in flags.all("device")),
    )


def _one_of(what: str, value: str, options: tuple[str, ...]) -> str:
    if value not in options:
        raise DockerfileError(
            f"invalid {what} {quote(value)}{did_you_mean(value, options)}",
            remedy=f"expected {', '.join(options[:-1])} or {options[-1]}",
        )
    return value


def _cmd(line: Line) -> df.Cmd:
    line.flags()
    return df.Cmd(**line.common(), command=_command(line, line.arguments))


def _entrypoint(line: Line) -> df.Entrypoint:
    line.flags()
    return df.Entrypoint(**line.common(), command=_command(line, line.arguments))


def _files(line: Line, flags: Flags) -> Files:
    from builder.dockerfile.heredocs import chomp_tabs, is_heredoc

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


def _needs_destination(line: Line) -> None:
    if len(line.arguments) < 2:
        raise DockerfileError(
            f"{line.name} requires at least two arguments, a source and a destination",
            remedy=f"expected {line.name} SOURCE… DESTINATION",
        )


def _copy(line: Line) -> df.Copy:
    _needs_destination(line)
    flags = line.flags()
    from_ = flags.one("from")
    if from_ and expand(line.word(from_), {}).text != from_:
        raise DockerfileError(
            "variable expansion is not supported for --from",
            remedy="define a stage with FROM, using an ARG from before the first FROM, and copy from that stage",
        )
    return df.Copy(**line.common(), **_files(line, flags), from_=from_, parents=bool(flags.boolean("parents")))


def _add(line: Line) -> df.Add:
    _needs_destination(line)
    flags = line.flags()
    return df.Add(
        **line.common(),
        **_files(line, flags),
        checksum=line.optional(flags.one("checksum")),
        keep_git_dir=flags.boolean("keep-git-dir"),
        unpack=flags.boolean("unpack"),
    )


def _pairs(line: Line) -> tuple[df.KeyValue, ...]:
    line.flags()
    _at_least_one(line, "name=value …")
    texts = line.arguments
    if not all(texts[::2]):
        raise DockerfileError(f"{line.name} names can not be blank", remedy=f"expected {line.name} name=value …")
    return tuple(
        df.KeyValue(line.word(key), line.word(value), legacy=line.node.legacy)
        for key, value in zip(texts[::2], texts[1::2], strict=True)
    )


def _env(line: Line) -> df.Env:
    return df.Env(**line.common(), pairs=_pairs(line))


def _label(line: Line) -> df.Label:
    return df.Label(**line.common(), pairs=_pairs(line))


def _arg(line: Line) -> df.Arg:
    # as in BuildKit, flags are dropped here without a look, and names are not expanded
    _at_least_one(line, "name[=default] …")
    pairs: list[df.KeyValue] = []
    for text in line.arguments:
        key, equals, value = text.partition("=")
        if not key:
            raise DockerfileError("ARG names can not be blank", remedy="expected ARG name[=default] …")
        pairs.append(df.KeyValue(literal(key), line.word(value), given=bool(equals)))
    return df.Arg(**line.common(), pairs=tuple(pairs))


def _expose(line: Line) -> df.Expose:
    _at_least_one(line, "port[/protocol] …")
    line.flags()
    return df.Expose(**line.common(), ports=line.words(sorted(line.arguments)))


def _workdir(line: Line) -> df.Workdir:
    path = _exactly_one(line, "/path")
    line.flags()
    return df.Workdir(**line.common(), path=line.word(path))


def _user(line: Line) -> df.User:
    user = _exactly_one(line, "user[:group]")
    line.flags()
    return df.User(**line.common(), user=line.word(user))


def _volume(line: Line) -> df.Volume:
    _at_least_one(line, "/path …")
    line.flags()
    paths = [path.strip(SPACE) for path in line.arguments]
    if not all(paths):
        raise DockerfileError("VOLUME specified can not be an empty string", remedy="expected VOLUME /path …")
    return df.Volume(**line.common(), paths=line.words(paths))


def _stop_signal(line: Line) -> df.StopSignal:
    return df.StopSignal(**line.common(), signal=line.word(_exactly_one(line, "SIGNAL")))


def _shell(line: Line) -> df.Shell:
    line.flags()
    _at_least_one(line, '["executable", "argument"]')
    if not line.node.json:
        raise DockerfileError(
            "SHELL requires the arguments to be in JSON form", remedy='expected SHELL ["executable", "argument"]'
        )
    return df.Shell(**line.common(), shell=line.arguments)


def _health_check(line: Line) -> df.HealthCheck:
    _at_least_one(line, "CMD command, or HEALTHCHECK NONE")
    kind, *arguments = line.arguments
    if kind.upper() == "NONE":
        if arguments:
            raise DockerfileError("HEALTHCHECK NONE takes no arguments", remedy="remove what follows NONE")
        return df.HealthCheck(**line.common(), test=None)
    flags = line.flags()
    if kind.upper() != "CMD":
        raise DockerfileError(f"unknown type {quote(kind)} in HEALTHCHECK", remedy="expected CMD or NONE")
    if not arguments:
        raise DockerfileError("missing command after HEALTHCHECK CMD", remedy="expected HEALTHCHECK CMD command")
    return df.HealthCheck(
        **line.common(),
        test=_command(line, tuple(arguments)),
        interval=_interval(flags, "interval"),
        timeout=_interval(flags, "timeout"),
        start_period=_interval(flags, "start-period"),
        start_interval=_interval(flags, "start-interval"),
        retries=_retries(flags),
    )


def _interval(flags: Flags, name: str) -> int:
    """Nanoseconds, 0 where not given."""
    text = flags.one(name)
    if not text:
        return 0
    from builder.dockerfile.values import parse_duration

    try:
        duration = parse_duration(text)
    except ValueError as error:
        raise DockerfileError(f"--{name}: {error}", remedy="expected a duration such as 30s or 1m30s") from None
    if duration and duration < _MILLISECOND:
        raise DockerfileError(f"--{name} cannot be less than 1ms", remedy="expected a duration such as 30s or 1m30s")
    return duration


def _retries(flags: Flags) -> int:
    text = flags.one("retries")
    if not text:
        return 0
    from builder.dockerfile.values import parse_integer

    try:
        retries = parse_integer(text)
    except ValueError as error:
        raise DockerfileError(f"--retries: {error}", remedy="expected --retries=NUMBER") from None
    if retries < 0:
        raise DockerfileError(f"--retries cannot be negative ({retries})", remedy="expected --retries=NUMBER")
    return retries


def _maintainer(line: Line) -> df.Maintainer:
    name = _exactly_one(line, "name")
    line.flags()
    return df.Maintainer(**line.common(), name=name)


def _on_build(line: Line) -> df.OnBuild:
    child = line.node.child
    if child is None:
        raise DockerfileError("ONBUILD requires at least one argument", remedy="expected ONBUILD INSTRUCTION …")
    line.flags()
    name = child.instruction.upper()
    if name == "ONBUILD":
        raise DockerfileError("chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", remedy="remove one ONBUILD")
    if name in ("MAINTAINER", "FROM"):
        raise DockerfileError(f"{name} isn't allowed as an ONBUILD trigger", remedy="use another instruction")
    trigger = re.sub(_ONBUILD, "", line.text, count=1)
    trigger += "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in line.heredocs)
    return df.OnBuild(**line.common(), trigger=trigger)


_MAKERS: dict[str, Callable[[Line], df.From | df.StageInstruction]] = {
    "add": _add,
    "arg": _arg,
    "cmd": _cmd,
    "copy": _copy,
    "entrypoint": _entrypoint,
    "env": _env,
    "expose": _expose,
    "from": _from,
    "healthcheck": _health_check,
    "label": _label,
    "maintainer": _maintainer,
    "onbuild": _on_build,
    "run": _run,
    "shell": _shell,
    "stopsignal": _stop_signal,
    "user": _user,
    "volume": _volume,
    "workdir": _workdir,
}
