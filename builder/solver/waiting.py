"""Waiting for what another step or another build has: the end of this build ends that, too, in whatever thread."""

from __future__ import annotations

import time

from builder.progress import Message
from builder.solver.environment import Environment

_FIRST, _LONGEST = 0.001, 0.05  # seconds between two looks
_QUIET = 1.0  # seconds until people are told


class Waiting:
    """To be called between two looks whether something has become free: sleeps, longer each time, and after a second
    tells once what is waited for (`text`). Raises Interrupted when the build is to end.

    A lock that the kernel is asked to wait for would keep its thread, and the build with it, until the other lets go.
    """

    def __init__(self, environment: Environment, text: str) -> None:
        self._environment = environment
        self._text = text
        self._pause = _FIRST
        self._waited = 0.0
        self._told = False

    def __call__(self) -> None:
        self._environment.check_cancelled()
        time.sleep(self._pause)
        self._waited += self._pause
        self._pause = min(2 * self._pause, _LONGEST)
        if self._waited >= _QUIET and not self._told:
            self._told = True
            self._environment.report(Message(self._text))
