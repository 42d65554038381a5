"""What happens during a build, as events. The core reports, the edge draws.

A `Reporter` is any callable that takes an event; it may be called from several threads at once and must not raise.
Times are seconds since the epoch; sizes are bytes.
"""

# No postponed annotations: msgspec would compile each of them before it first decodes one of the classes here.
from collections.abc import Callable

import msgspec

from builder.errors import one_line


class Event(msgspec.Struct, frozen=True, tag=True, tag_field="event"):
    """The base of all events."""


class Reason(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a step was not taken from the cache. `kind` is a word for machines (README, "Why a step ran"), `text` a line
    for people; `step` the step that it follows from, '' where there is none."""

    kind: str
    text: str
    step: str = ""


class StepStarted(Event, frozen=True):
    """A step began to run. `step` is unique within the build; `name` is what people see (`[build 2/5] RUN make`);
    `inputs` are what it is made from: steps, and what none is told of (images)."""

    step: str
    name: str
    inputs: tuple[str, ...] = ()


class StepMissed(Event, frozen=True):
    """A step's result is not in the cache, and why that is. Comes when it is known, and not at all if it is not."""

    step: str
    reason: Reason


class StepOutput(Event, frozen=True):
    """A piece of a step's output, as written (not cut at lines); `stream` is 1 for standard output, 2 for error."""

    step: str
    data: bytes
    stream: int = 1


class StepDone(Event, frozen=True):
    """A step ended. `cached` when its result was already there, else `reason` says why not where that is known; `error`
    when it failed."""

    step: str
    name: str
    cached: bool = False
    seconds: float = 0.0
    error: str | None = None
    reason: Reason | None = None


class Transfer(Event, frozen=True):
    """Progress of a pull, a push or an export: `done` of `total` bytes (`total` is -1 while unknown).

    `outcome` comes with the last event of a blob, from those who know it: `fetched`, `sent`, `present` (nothing had to
    move), `mounted from REPOSITORY`.
    """

    name: str
    done: int
    total: int
    outcome: str = ""


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


Check = Callable[[], None]
"""Called again and again by what takes long; what it raises ends that."""


def unchecked() -> None:
    """A check that ends nothing."""


def human_size(count: float) -> str:
    """Bytes for people, in powers of 1000 as Docker shows them: `1.23MB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            return f"{count:.3g}{unit}" if unit != "B" else f"{int(count)}B"
        count /= 1000
    raise AssertionError


def warning(event: Warned) -> str:
    """One line for a warning: `WARNING: Dockerfile:3: RULE: text`."""
    parts = [part for part in (event.place, event.rule, event.text) if part]
    return "WARNING: " + one_line(": ".join(parts))
