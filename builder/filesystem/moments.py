"""Which changes of files are past: a file that changes once more bears another time then.

Whoever takes a file for the same because the file system says the same of it must know that a change since would show.
The kernel stamps a change with a clock that goes in steps (`CLOCK_REALTIME_COARSE`, of some milliseconds), or with a
later time: what bears an earlier one than this clock's, before it is looked at, cannot bear it once more. That holds
for file systems that store times as the kernel gives them, which are known by name; those of other machines, of FUSE
and of old formats get times from elsewhere, or round them. git has the same difficulty ("racy git").
"""

from __future__ import annotations

import os
import time

_COARSE = 5  # CLOCK_REALTIME_COARSE of <linux/time.h>, to which Python gives no name
_EXACT = frozenset((b"ext4", b"xfs", b"btrfs", b"f2fs", b"tmpfs"))
_ROUNDED = 2_000_000_000  # the coarsest times: those of FAT, and of some servers
_UNSTAMPED = 100_000_000  # not of every write through a mapping is there a time, see `is_past`
_SECOND = 1_000_000_000
_MOUNTS = "/proc/self/mountinfo"


def now() -> int:
    """What the kernel would stamp a change with, in nanoseconds since the epoch."""
    return time.clock_gettime_ns(_COARSE)


class Moment:
    """A moment before files are looked at, `at` as `now` gives it. What changed before `settled` is past wherever it
    lies."""

    def __init__(self, at: int | None = None) -> None:
        self._at = now() if at is None else at
        self._exact: dict[str, bool] = {}
        self.settled = self._at - _ROUNDED

    def is_past(self, changed_ns: int, place: str) -> bool:
        """Whether a file that changed at `changed_ns`, and is `place` or lies below it, bears a later time if it
        changes after this moment.

        A time in whole seconds is that of an old format (ext4 with inodes of 128 bytes), in one of 10⁹ cases chance.
        The tenth of a second is no rounding: who writes through a mapping leaves a time at the first write to a page
        and none at those that follow at once, so that a file needs some time to be what it will be.
        """
        if changed_ns < self.settled:
            return True
        return changed_ns < self._at - _UNSTAMPED and changed_ns % _SECOND != 0 and self._is_exact(place)

    def _is_exact(self, place: str) -> bool:
        known = self._exact.get(place)
        if known is None:
            known = self._exact[place] = has_exact_times(place)
        return known


def has_exact_times(place: str, mounts: str = _MOUNTS) -> bool:
    """Whether each file system that `place` lies on, that its link lies on if it is one, or that is mounted below it,
    stores times as the kernel gives them. False if that cannot be known."""
    real = os.path.realpath(place)
    paths = [real]
    if os.path.islink(place):
        paths.append(os.path.join(os.path.realpath(os.path.dirname(place)), os.path.basename(place)))
    try:
        with open(mounts, "rb") as file:
            table = [_Mount(line) for line in file]
    except (OSError, ValueError, LookupError):
        return False
    below = os.path.join(os.fsencode(real), b"")
    kinds = {mount.kind for mount in table if mount.point.startswith(below)}
    kinds.update(_kind_at(os.fsencode(path), table) for path in paths)
    return kinds <= _EXACT


class _Mount:
    """A line of mountinfo, see proc(5). Raises ValueError and LookupError for what is none."""

    def __init__(self, line: bytes) -> None:
        fields = line.split(b" ")
        self.number, self.parent = int(fields[0]), int(fields[1])
        self.point = _unescape(fields[4])
        self.kind = fields[fields.index(b"-") + 1]


def _unescape(field: bytes) -> bytes:
    """A path of mountinfo, in which white space and backslashes are octal numbers."""
    first, *others = field.split(b"\\")
    return first + b"".join(bytes((int(other[:3], 8),)) + other[3:] for other in others)


def _kind_at(path: bytes, table: list[_Mount]) -> bytes:
    """The kind of the file system that a path without links leads to: from mount to mount, as the kernel goes, since a
    mount may hide others, and the order of lines says nothing. Empty if that is not known."""
    numbers = {mount.number for mount in table}
    at = [mount for mount in table if mount.parent not in numbers or mount.parent == mount.number]
    kind = b""
    while at:
        leading = [mount for mount in at if path == mount.point or path.startswith(mount.point.rstrip(b"/") + b"/")]
        if not leading:
            break
        first = min(leading, key=lambda mount: len(mount.point))
        kind = first.kind
        at = [mount for mount in table if mount.parent == first.number and mount is not first]
    return kind
