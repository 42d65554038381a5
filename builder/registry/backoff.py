"""Trying again: when, and for how long."""

from __future__ import annotations

import time
from typing import Protocol

from builder.registry.clients import Patience
from builder.registry.failures import Transient, Unreachable

_SLOW = 10.0  # seconds after which a failed attempt is told of


class Pause(Protocol):
    """Waits `delay` seconds because of `reason`, and says so if people are to be told of it."""

    def __call__(self, delay: float, reason: Transient, *, tell: bool) -> None: ...


class Backoff:
    """Decides after each failure whether to wait and try again. One for each operation, used by one thread."""

    def __init__(self, patience: Patience, pause: Pause) -> None:
        self._patience = patience
        self._pause = pause
        self._failures = 0
        self._began = time.monotonic()
        self.renew()

    def progressed(self) -> None:
        """Something was achieved that the next attempt goes on from: attempts and time are counted anew."""
        self._failures = 0
        self.renew()

    def renew(self) -> None:
        """Bytes are moving: the time is counted anew, so that it limits failing and waiting but no long transfer."""
        self._deadline = time.monotonic() + self._patience.budget

    def wait(self, failure: Transient) -> None:
        """Sleep before the next attempt, with jitter, as long as the server asks for; or raise `failure`."""
        import random

        self._failures += 1
        patience = self._patience
        limit = patience.connect_attempts if isinstance(failure, Unreachable) else patience.attempts
        if self._failures >= limit:
            raise failure
        delay = min(patience.longest_delay, patience.first_delay * 2 ** (self._failures - 1))
        delay *= random.uniform(0.5, 1.0)
        if failure.retry_after is not None:
            delay = max(failure.retry_after, 0.0) + random.uniform(0.0, 0.1) * patience.first_delay
        if time.monotonic() + delay > self._deadline:
            raise failure
        slow = time.monotonic() - self._began >= _SLOW
        self._pause(delay, failure, tell=slow or delay >= 1)
        self._began = time.monotonic()
