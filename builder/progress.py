"""What happens during a build, as events. The core reports, the edge draws.

A `Reporter` is any callable that takes an event; it may be called from several threads at once and must not raise.
Times are seconds since the epoch; sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class Event(msgspec.Struct, frozen=True, tag=True, tag_field="event"):
    """The base of all events."""


class StepStarted(Event, frozen=True):
    """A step began to run. `step` is unique within the build; `name` is what people see (`[build 2/5] RUN make`)."""

    step: str
    name: str


class StepOutput(Event, frozen=True):
    """A piece of a step's output, as written (not cut at lines); `stream` is 1 for standard output, 2 for error."""

    step: str
    data: bytes
    stream: int = 1


class StepDone(Event, frozen=True):
    """A step ended. `cached` when its result was already there; `error` when it failed."""

    step: str
    name: str
    cached: bool = False
    seconds: float = 0.0
    error: str | None = None


class Transfer(Event, frozen=True):
    """Progress of a pull, a push or an export: `done` of `total` bytes (`total` is -1 while unknown)."""

    name: str
    done: int
    total: int


class Message(Event, frozen=True):
    """A line for people that belongs to no step."""

    text: str


class Warned(Event, frozen=True):
    """Something dubious that does not stop the build; `place` is like `Dockerfile:7`, `rule` a check's name."""

    text: str
    place: str | None = None
    rule: str | None = None


Reporter = Callable[[Event], None]


def ignore(event: Event) -> None:
    """A reporter that drops every event."""
