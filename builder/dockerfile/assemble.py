"""From a line's parts to a typed instruction: what each instruction takes and refuses.

The rules are those of BuildKit's frontend/dockerfile/instructions/parse.go. All errors are DockerfileErrors without a
place; `parser` adds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from builder.dockerfile import instructions as df
from builder.dockerfile.flags import Flags
from builder.dockerfile.instruction_line import Line, at_least_one, command, exactly_one
from builder.dockerfile.syntax import INSTRUCTIONS
from builder.dockerfile.text import SPACE, did_you_mean, quote
from builder.dockerfile.words import Word, literal
from builder.errors import DockerfileError

_STAGE_NAME = r"[a-z][a-z0-9._-]*\Z"
_ONBUILD = r"(?i)[\t\n\f\r ]*ONBUILD[\t\n\f\r ]*"
_NETWORKS = ("default", "host", "none")
_SECURITIES = ("insecure", "sandbox")


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
        command=command(line, line.arguments),
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
    return df.Cmd(**line.common(), command=command(line, line.arguments))


def _entrypoint(line: Line) -> df.Entrypoint:
    line.flags()
    return df.Entrypoint(**line.common(), command=command(line, line.arguments))


# What takes many lines is loaded when a Dockerfile has it.


def _copy(line: Line) -> df.Copy:
    from builder.dockerfile.assemble_files import copy

    return copy(line)


def _add(line: Line) -> df.Add:
    from builder.dockerfile.assemble_files import add

    return add(line)


def _health_check(line: Line) -> df.HealthCheck:
    from builder.dockerfile.assemble_health import health_check

    return health_check(line)


def _pairs(line: Line) -> tuple[df.KeyValue, ...]:
    line.flags()
    at_least_one(line, "name=value …")
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
    at_least_one(line, "name[=default] …")
    pairs: list[df.KeyValue] = []
    for text in line.arguments:
        key, equals, value = text.partition("=")
        if not key:
            raise DockerfileError("ARG names can not be blank", remedy="expected ARG name[=default] …")
        pairs.append(df.KeyValue(literal(key), line.word(value), given=bool(equals)))
    return df.Arg(**line.common(), pairs=tuple(pairs))


def _expose(line: Line) -> df.Expose:
    at_least_one(line, "port[/protocol] …")
    line.flags()
    return df.Expose(**line.common(), ports=line.words(sorted(line.arguments)))


def _workdir(line: Line) -> df.Workdir:
    path = exactly_one(line, "/path")
    line.flags()
    return df.Workdir(**line.common(), path=line.word(path))


def _user(line: Line) -> df.User:
    user = exactly_one(line, "user[:group]")
    line.flags()
    return df.User(**line.common(), user=line.word(user))


def _volume(line: Line) -> df.Volume:
    at_least_one(line, "/path …")
    line.flags()
    paths = [path.strip(SPACE) for path in line.arguments]
    if not all(paths):
        raise DockerfileError("VOLUME specified can not be an empty string", remedy="expected VOLUME /path …")
    return df.Volume(**line.common(), paths=line.words(paths))


def _stop_signal(line: Line) -> df.StopSignal:
    return df.StopSignal(**line.common(), signal=line.word(exactly_one(line, "SIGNAL")))


def _shell(line: Line) -> df.Shell:
    line.flags()
    at_least_one(line, '["executable", "argument"]')
    if not line.node.json:
        raise DockerfileError(
            "SHELL requires the arguments to be in JSON form", remedy='expected SHELL ["executable", "argument"]'
        )
    return df.Shell(**line.common(), shell=line.arguments)


def _maintainer(line: Line) -> df.Maintainer:
    name = exactly_one(line, "name")
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
