"""What takes time in a build beside its steps: transfers, looking images up, writing outputs."""

from __future__ import annotations

import threading
import time

from builder.progress import Event, StepDone, StepStarted, Transfer
from builder.store.builds import Span

_Key = tuple[str, bool]


class SpanLog:
    """Listens to a build's events; several threads may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[_Key, Span] = {}
        self._done: list[Span] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Transfer):
            self._transfer(event)
        elif isinstance(event, StepStarted) and not event.step.isdigit():  # those with numbers are the plan's
            with self._lock:
                self._open[event.step, False] = Span(event.name, time.time(), 0.0)
        elif isinstance(event, StepDone) and not event.step.isdigit():
            with self._lock:
                self._close((event.step, False), event.error or "", -1)

    def _transfer(self, event: Transfer) -> None:
        key = (event.name, True)
        with self._lock:
            if key not in self._open:
                self._open[key] = Span(event.name, time.time(), 0.0, transfer=True)
            if event.total >= 0 and event.done >= event.total:
                self._close(key, event.outcome, event.total)

    def _close(self, key: _Key, outcome: str, size: int) -> None:
        begun = self._open.pop(key, None)
        if begun is not None:
            seconds = time.time() - begun.started
            self._done.append(Span(begun.name, begun.started, seconds, begun.transfer, size, outcome))

    def spans(self) -> tuple[Span, ...]:
        """All of it so far, in the order of their beginnings; what has not ended was cut off now."""
        with self._lock:
            for key in list(self._open):
                self._close(key, "unfinished", -1)
            return tuple(sorted(self._done, key=lambda span: span.started))
