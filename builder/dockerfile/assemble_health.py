"""HEALTHCHECK from its line. The rules are those of BuildKit's frontend/dockerfile/instructions/parse.go."""

from __future__ import annotations

from builder.dockerfile import instructions as df
from builder.dockerfile.flags import Flags
from builder.dockerfile.instruction_line import Line, at_least_one, command
from builder.dockerfile.text import quote
from builder.dockerfile.values import parse_duration, parse_integer
from builder.errors import DockerfileError

_MILLISECOND = 10**6


def health_check(line: Line) -> df.HealthCheck:
    at_least_one(line, "CMD command, or HEALTHCHECK NONE")
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
        test=command(line, tuple(arguments)),
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
    try:
        retries = parse_integer(text)
    except ValueError as error:
        raise DockerfileError(f"--retries: {error}", remedy="expected --retries=NUMBER") from None
    if retries < 0:
        raise DockerfileError(f"--retries cannot be negative ({retries})", remedy="expected --retries=NUMBER")
    return retries
