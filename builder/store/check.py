"""`check`: is everything in a store as it was written, and what can be mended?

May run beside builds: a blob is renamed into place when it is complete, and what running builds hold is left alone.
The order matters: what is found of blobs decides about images and records, and these about unpacked layers.
"""

from __future__ import annotations

import os
from contextlib import nullcontext

import msgspec

from builder.config import ArchiveLimits
from builder.errors import StoreError, store_error
from builder.store.check_blobs import check_blobs
from builder.store.check_images import check_images, check_layout
from builder.store.check_leftovers import check_builds, check_failed, check_leases, check_mounts, check_temporary
from builder.store.check_records import check_records
from builder.store.check_session import LEFTOVER, Depth, Fetch, Problem, Progress, Session
from builder.store.check_snapshots import check_snapshots
from builder.store.room import room

_PARTS = (
    check_temporary,
    check_leases,
    check_layout,
    check_blobs,
    check_images,
    check_records,
    check_snapshots,
    check_builds,
    check_failed,
    check_mounts,
)


class Checked(msgspec.Struct, frozen=True):
    """What a check found. `counts` says how much was looked at (blobs, bytes, layers, images, records, snapshots,
    builds, failed, mounts); `read_only` that nothing could be repaired because the store can only be read."""

    root: str
    problems: tuple[Problem, ...]
    counts: dict[str, int]
    read_only: bool = False

    def remaining(self) -> list[Problem]:
        """The damage that was not repaired. Leftovers do not count."""
        return [problem for problem in self.problems if problem.severity != LEFTOVER and not problem.repair]


def check(
    root: str,
    depth: Depth,
    progress: Progress,
    fetch: Fetch | None = None,
    limits: ArchiveLimits | None = None,
) -> Checked:
    """Check the store below `root`. With `fetch` a repair brings the layers that images lack and a registry has;
    `limits` bound what layers may become uncompressed.

    Raises StoreError where there is no store, or where a repair fails.
    """
    root = os.path.abspath(root)
    if not os.path.isdir(os.path.join(root, "blobs")):
        raise StoreError("there is no store here", place=root, remedy="name the store with --root")
    read_only = not os.access(root, os.W_OK)
    if read_only:
        depth = Depth(deep=depth.deep)
    session = Session(root, depth, progress, fetch, limits or ArchiveLimits())
    try:
        with room(root) if depth.repair else nullcontext():
            for part in _PARTS:
                part(session)
    except OSError as error:
        raise store_error("the check cannot go on", error, error.filename or root) from error
    return Checked(root, tuple(session.problems), session.counts, read_only)
