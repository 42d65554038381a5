"""How a build is shown: plain lines, a live view on a terminal, nothing, or JSON lines for machines.

A view is a reporter (it may be called from several threads) with a `close`.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Protocol, TextIO

from builder.errors import UsageError, one_line
from builder.filesystem.names import printable
from builder.progress import (
    Event,
    Message,
    StepDone,
    StepMissed,
    StepOutput,
    StepStarted,
    Transfer,
    Warned,
    human_size,
    warning,
)

MODES = ("auto", "plain", "tty", "quiet", "rawjson", "none")

_LONGEST = 16 << 10  # bytes of an unfinished line


class View(Protocol):
    """Shows events."""

    def __call__(self, event: Event) -> None: ...

    def close(self) -> None:
        """Leave the terminal as it was."""


def open_view(mode: str, stream: TextIO | None = None) -> View:
    """The view for `--progress MODE`; `auto` is a live view on a terminal and plain lines elsewhere."""
    out = stream or sys.stderr
    if mode == "auto":
        mode = "tty" if out.isatty() else "plain"
    if mode in ("quiet", "none"):
        return QuietView(out)
    if mode == "rawjson":
        from builder.cli.rawjson import RawJsonView

        return RawJsonView(out)
    if mode == "plain":
        return PlainView(out)
    if mode == "tty":
        from builder.cli.live import LiveView

        return LiveView(out)
    raise unknown_mode(mode)


def unknown_mode(mode: str) -> UsageError:
    """The error for what is none of MODES."""
    return UsageError(f"unknown progress mode {mode!r}", remedy=f"choose one of {', '.join(MODES)}")


class QuietView:
    """Only warnings."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def __call__(self, event: Event) -> None:
        if isinstance(event, Warned):
            print(warning(event), file=self._out, flush=True)

    def close(self) -> None:
        pass


class PlainView:
    """A log: `#4 [stage 2/5] RUN make`, why it runs (`#4 because main.c changed`), output lines with their times, and
    `#4 DONE 1.2s` or `#4 CACHED`."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}
        self._started: dict[str, float] = {}
        self._rest: dict[tuple[str, int], bytes] = {}
        self._shown: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._show(event)
            self._out.flush()

    def _show(self, event: Event) -> None:
        if isinstance(event, StepStarted):
            number = self._numbers.setdefault(event.step, len(self._numbers) + 1)
            self._started[event.step] = time.monotonic()
            self._line(f"#{number} {one_line(event.name)}")
        elif isinstance(event, StepMissed):
            self._line(f"#{self._numbers.get(event.step, 0)} because {printable(event.reason.text)}")
        elif isinstance(event, StepOutput):
            self._output(event)
        elif isinstance(event, StepDone):
            self._done(event)
        elif isinstance(event, Transfer):
            self._transfer(event)
        elif isinstance(event, Warned):
            self._line(warning(event))
        elif isinstance(event, Message):
            self._line(one_line(event.text))

    def _output(self, event: StepOutput) -> None:
        key = (event.step, event.stream)
        *lines, rest = (self._rest.get(key, b"") + event.data).split(b"\n")
        if len(rest) > _LONGEST:  # shown as it comes, and not gathered until the step ends
            lines, rest = [*lines, rest], b""
        self._rest[key] = rest
        for line in lines:
            self._output_line(event.step, line)

    def _output_line(self, step: str, line: bytes) -> None:
        elapsed = time.monotonic() - self._started.get(step, time.monotonic())
        text = line.decode("utf-8", "backslashreplace").rstrip("\r")
        self._line(f"#{self._numbers.get(step, 0)} {elapsed:.3f} {text}")

    def _done(self, event: StepDone) -> None:
        for key in [key for key in self._rest if key[0] == event.step]:
            rest = self._rest.pop(key)
            if rest:
                self._output_line(event.step, rest)
        done = "CACHED" if event.cached else f"DONE {event.seconds:.1f}s"
        state = f"ERROR: {one_line(event.error)}" if event.error else done
        self._line(f"#{self._numbers.get(event.step, 0)} {state}")

    def _transfer(self, event: Transfer) -> None:
        now = time.monotonic()
        finished = event.total >= 0 and event.done >= event.total
        if finished or now - self._shown.get(event.name, 0.0) > 5:
            self._shown[event.name] = now
            total = f" / {human_size(event.total)}" if event.total >= 0 else ""
            self._line(f"{one_line(event.name)}: {human_size(event.done)}{total}{' done' if finished else ''}")

    def _line(self, text: str) -> None:
        self._out.write(text + "\n")

    def close(self) -> None:
        pass
