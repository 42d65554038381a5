"""Descriptors of directories, opened so that no link is followed on the way."""

from __future__ import annotations

import os
from collections.abc import Iterable

_BELOW = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Directory:
    """An open directory. It closes with its last reference, so a thread may go on using what another one let go."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)

    def below(self, names: Iterable[str]) -> Directory:
        """The directory reached over `names`, which must be plain names (not `..`).

        Raises FileNotFoundError, and NotADirectoryError for anything else than a directory, a link to one included.
        """
        directory = self
        for name in names:
            directory = Directory(os.open(name, _BELOW, dir_fd=directory.fd))
        return directory


def is_plain(name: str) -> bool:
    """Whether a component of a path is a name in the directory before it, and nothing that leads elsewhere."""
    return name not in ("", ".", "..") and "/" not in name


def open_directory(path: str) -> Directory:
    """A directory that the user named (links are followed), for use as `dir_fd`. Raises OSError."""
    return Directory(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
