"""Small layers of a build's own commands, folded for those that come after them.

In a chain of commands each lies on a layer more than the one before, and for each layer the kernel takes some 20 µs to
make a root and to look up names in it. So while a command runs, what the ten before it wrote is copied into one
directory, which later commands have in the place of these layers; what they write is still compared with the layers
themselves. A command can tell by inode numbers, ctimes and numbers of links.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from builder.store.store import Store

FEWEST = 10
"""Layers that are folded at once: to copy one takes 0.1 ms, and most Dockerfiles have fewer in a row."""
LARGEST = 64 << 10
"""Bytes of a layer, as a tar archive, that is worth copying."""


class _Fold(msgspec.Struct, frozen=True):
    """The directories of some layers, the topmost first, and the one that stands for them."""

    layers: tuple[str, ...]
    directory: str


class Folds:
    """The folded layers of one build. For any number of threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._small: set[str] = set()
        self._by_top: dict[str, _Fold] = {}
        self._scratch = ""
        self._count = itertools.count()
        self._lock = threading.Lock()

    def add(self, directory: str, size: int) -> None:
        """Tell of the layer in `directory`, of `size` bytes as a tar archive, to which nobody writes any more."""
        if size <= LARGEST:
            self._small.add(directory)

    def over(self, lowers: Sequence[str]) -> list[str]:
        """The directories of layers, the topmost first, with folded ones in the place of those that they stand for."""
        found: list[str] = []
        at = 0
        while at < len(lowers):
            fold = self._by_top.get(lowers[at])
            if fold is not None and tuple(lowers[at : at + len(fold.layers)]) == fold.layers:
                found.append(fold.directory)
                at += len(fold.layers)
            else:
                found.append(lowers[at])
                at += 1
        return found

    def fold(self, lowers: Sequence[str]) -> None:
        """Fold the uppermost of what a command lies on, if that is worth it."""
        layers = tuple(takewhile(self._small.__contains__, lowers))
        if len(layers) < FEWEST:
            return
        self._small.difference_update(layers)  # whatever becomes of it: once is enough
        from builder.errors import BuilderError
        from builder.filesystem.fold import Unfoldable, fold_layers

        try:
            with self._lock:
                self._scratch = self._scratch or self._store.step_scratches.take()
            directory = f"{self._scratch}/fold{next(self._count)}"
            os.mkdir(directory)
            with self._store.unpacked.tree_over(lowers[len(layers) :]) as below:
                fold_layers(layers, directory, below)
        except (BuilderError, OSError, Unfoldable):
            return  # the layers themselves will do
        self._by_top[layers[0]] = _Fold(layers, directory)

    def close(self) -> None:
        """Let go of what was folded: no command may use it any more."""
        self._by_top.clear()
        if self._scratch:
            self._store.step_scratches.discard(self._scratch)
            self._scratch = ""
