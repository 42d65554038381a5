"""What a command in the sandbox did, for the tests to look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from builder.sandbox.command import Result

PATH = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"


class Outcome(NamedTuple):
    result: Result
    out: str
    err: str
    upper: Path

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    def changed(self) -> list[str]:
        """What the command left in the upper directory."""
        return sorted(str(path.relative_to(self.upper)) for path in self.upper.rglob("*"))


Run = Callable[..., Outcome]
