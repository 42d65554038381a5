"""What a command in the sandbox did, for the tests to look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

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


def needs_groups(result: Result) -> None:
    """Skip where this machine has no control groups to set limits with; any other failure to set them is one."""
    if result.setup_failed:
        assert "control group" in result.error, result.error
        pytest.skip(result.error)
