"""What is known of one unpacked layer, for all stacks that have it: each step of a build lies on the layers of those
before it, and would ask every one of them for the same directories, and for names that they have not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container
from typing import Literal

_CACHED = 4096  # directories of which something is kept, before that starts anew
_LISTED = 64  # names of a directory that are listed: to read so many takes as long as to look for a few

Place = Literal["absent", "other", "directory", "opaque"]
"""What a layer has at a path that a directory of a stack may have. What is no directory hides those below, as an opaque
one does."""


class _Everything:
    """The names in a directory of which nothing is known."""

    def __contains__(self, name: object) -> bool:
        return True


_ASKED, _MANY = _Everything(), _Everything()


class LayerFacts:
    """Facts of a layer that never changes. For any number of threads."""

    __slots__ = ("_names", "_places")

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._names: dict[str, Container[str]] = {}

    def place(self, path: str) -> Place | None:
        """What the layer has at a path, if that is known."""
        return self._places.get(path)

    def keep_place(self, path: str, place: Place) -> Place:
        if len(self._places) >= _CACHED:
            self._places.clear()
        self._places[path] = place
        return place

    def names(self, directory: str, open_directory: Callable[[], int]) -> Container[str]:
        """The names in a directory, and maybe others. It is listed when this is asked for the second time."""
        known = self._names.get(directory)
        if known is None:
            if len(self._names) >= _CACHED:
                self._names.clear()
            known = self._names[directory] = _ASKED
        elif known is _ASKED:
            known = self._names[directory] = _list(open_directory)
        return known


def _list(open_directory: Callable[[], int]) -> Container[str]:
    names: set[str] = set()
    try:
        descriptor = open_directory()
    except OSError:  # it can be looked into all the same, name by name
        return _MANY
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                if len(names) == _LISTED:
                    return _MANY
                names.add(entry.name)
    finally:
        os.close(descriptor)
    return names
