"""How the records of builds are named, how many are kept, see `builds`, and where notes for repeated builds are.

Standard library only, since a repeated build (`api.repeat`) loads nothing else."""

from __future__ import annotations

KEPT_BUILDS = 100
SLACK = 10
"""Builds more than are kept, before the oldest are dropped: not every build has to."""
RECORD, LOG = ".json", ".log"
REPEATS = "repeats"
NEWEST, POSITION = "latest", "-([1-9][0-9]{0,5})"
"""The newest build for people, and a pattern of how new another one is: `-1` is the newest, `-2` the one before."""


def record_stem(started: float, build: str) -> str:
    """The name of a build's record without its ending, and of the directory of its logs. Names sort by time."""
    return f"{int(started * 1000):012x}-{build}"
