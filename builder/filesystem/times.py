"""Times of files that are younger than a build may say (SOURCE_DATE_EPOCH)."""

from __future__ import annotations

import os


def clamp_times(directory: str, epoch: int) -> None:
    """Give everything below `directory` that is younger than `epoch` (seconds) that time. Links are not followed.

    A step's files are clamped themselves, not only its layer, so that later steps see the same times whether the layer
    was just made or came from the cache.
    """
    limit = epoch * 1_000_000_000
    for _, directories, files, descriptor in os.fwalk(directory, topdown=False, follow_symlinks=False):
        for name in (*files, *directories):
            if os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mtime_ns > limit:
                os.utime(name, ns=(limit, limit), dir_fd=descriptor, follow_symlinks=False)
