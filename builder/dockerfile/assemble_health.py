"""HEALTHCHECK from its line. The rules are those of BuildKit's frontend/dockerfile/instructions/parse.go."""

from __future__ import annotations

from collections.abc import Callable

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
    expected = "expected a duration such as 30s or 1m30s"
    duration = _value(flags, name, parse_duration, expected)
    if duration and duration < _MILLISECOND:
        raise DockerfileError(f"--{name} cannot be less than 1ms", remedy=expected)
    return duration


def _retries(flags: Flags) -> int:
    expected = "expected --retries=NUMBER"
    retries = _value(flags, "retries", parse_integer, expected)
    if retries < 0:
        raise DockerfileError(f"--retries cannot be negative ({retries})", remedy=expected)
    return retries


def _value(flags: Flags, name: str, parse: Callable[[str], int], expected: str) -> int:
    text = flags.one(name)
    try:
        return parse(text) if text else 0
    except ValueError as error:
        raise DockerfileError(f"--{name}: {error}", remedy=expected) from None
