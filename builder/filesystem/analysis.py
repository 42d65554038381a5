"""What the layers of an image cost: who added, changed and removed what, and which bytes nobody can see any more.

Everything comes from one pass over the layers' tar streams. Sizes are bytes of files without compression.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nlargest

import msgspec

from builder.filesystem import kinds
from builder.filesystem.contents import Contents, Stored, difference
from builder.filesystem.leftovers import leftover_of
from builder.filesystem.readable import Readable


class FileSize(msgspec.Struct, frozen=True):
    """A file that a layer stores; `layer` counts from 1."""

    path: str
    size: int
    layer: int


class LayerChanges(msgspec.Struct, frozen=True):
    """What one layer does. `layer` counts from 1; `size` is that of its tar stream; `added`, `changed` and `removed`
    count files, directories and links (a directory that is only named again is none of them); `largest` are the
    largest files that it stores; `wasted` the bytes of its files that this or a later layer hides."""

    layer: int
    diff_id: str
    size: int
    added: int
    changed: int
    removed: int
    largest: tuple[FileSize, ...]
    wasted: int = 0


class HiddenCopy(msgspec.Struct, frozen=True):
    """`size` bytes in `layer`, which `by` (a layer) removed or, if not `removed`, replaced."""

    layer: int
    size: int
    by: int
    removed: bool


class Waste(msgspec.Struct, frozen=True):
    """A path whose content is stored and cannot be seen."""

    path: str
    size: int
    copies: tuple[HiddenCopy, ...]


class Duplicate(msgspec.Struct, frozen=True):
    """One content that several layers store; `size` is that of one copy, `extra` what all but one of them take."""

    size: int
    extra: int
    copies: tuple[FileSize, ...]


class LeftCache(msgspec.Struct, frozen=True):
    """What a package manager left in a directory, and the layers that store it."""

    manager: str
    path: str
    files: int
    size: int
    layers: tuple[int, ...]
    remedy: str


class Analysis(msgspec.Struct, frozen=True):
    """Everything. `size` is the sum of the layers', `wasted` that of all hidden copies. Lists are sorted, largest
    first, and hold at most as many as was asked for; caches are all there."""

    layers: tuple[LayerChanges, ...]
    size: int
    wasted: int
    largest: tuple[FileSize, ...]
    waste: tuple[Waste, ...]
    duplicates: tuple[Duplicate, ...]
    caches: tuple[LeftCache, ...]


class Analyser:
    """Takes layers, lowest first, then says what was found; `top` bounds each list."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._contents = Contents()
        self._stored: list[Stored] = []
        self._layers: list[LayerChanges] = []
        self._hidden: dict[tuple[int, int], tuple[int, bool]] = {}  # a stored content: by which layer, and how

    def add(self, stream: Readable) -> None:
        """The next layer's uncompressed tar stream. Raises LayerError."""
        applied = self._contents.apply(stream, digests=True)
        number = self._contents.layers
        self._stored += applied.stored
        added = changed = removed = 0
        for path, before in applied.before.items():
            after = self._contents.entry(path)
            if before is not None and before.stored is not None and (after is None or after.stored != before.stored):
                self._hidden[before.stored.layer, before.stored.number] = (number, after is None)
            if before is None:
                added += after is not None
            elif after is None:
                removed += 1
            elif difference(before, after):
                changed += 1
        largest = tuple(_file(stored) for stored in self._largest(applied.stored))
        self._layers.append(LayerChanges(number, applied.diff_id, applied.size, added, changed, removed, largest))

    def finish(self) -> Analysis:
        """What all layers together are."""
        visible = set()
        caches: dict[tuple[str, str], list[tuple[Stored, str]]] = {}
        for path, entry in self._contents.walk():
            stored = entry.stored
            if entry.info.kind != kinds.FILE or stored is None or not stored.size:
                continue
            visible.add((stored.layer, stored.number))
            found = leftover_of(path)
            if found is not None:
                caches.setdefault((found[0].manager, found[1]), []).append((stored, found[0].remedy))
        waste = self._waste(visible)
        wasted = [0] * len(self._layers)
        for one in waste:
            for copy in one.copies:
                wasted[copy.layer - 1] += copy.size
        return Analysis(
            layers=tuple(
                msgspec.structs.replace(layer, wasted=lost) for layer, lost in zip(self._layers, wasted, strict=True)
            ),
            size=sum(layer.size for layer in self._layers),
            wasted=sum(wasted),
            largest=tuple(_file(stored) for stored in self._largest(self._stored)),
            waste=tuple(nlargest(self._top, waste, key=lambda one: one.size)),
            duplicates=tuple(nlargest(self._top, self._duplicates(), key=lambda one: one.extra)),
            caches=_left(caches),
        )

    def _largest(self, stored: Iterable[Stored]) -> list[Stored]:
        return nlargest(self._top, (one for one in stored if one.size), key=lambda one: one.size)

    def _waste(self, visible: set[tuple[int, int]]) -> list[Waste]:
        copies: dict[str, list[HiddenCopy]] = {}
        for stored in self._stored:
            place = (stored.layer, stored.number)
            if stored.size and place not in visible:
                # what the same layer has twice was never seen from outside it
                by, removed = self._hidden.get(place, (stored.layer + 1, False))
                copies.setdefault(stored.path, []).append(HiddenCopy(stored.layer + 1, stored.size, by, removed))
        return [Waste(path, sum(copy.size for copy in found), tuple(found)) for path, found in copies.items()]

    def _duplicates(self) -> Iterable[Duplicate]:
        by_content: dict[bytes, list[Stored]] = {}
        for stored in self._stored:
            if stored.digest:
                by_content.setdefault(stored.digest, []).append(stored)
        for found in by_content.values():
            if len({stored.layer for stored in found}) > 1:
                size = found[0].size
                yield Duplicate(size, size * (len(found) - 1), tuple(_file(stored) for stored in found))


def _file(stored: Stored) -> FileSize:
    return FileSize(stored.path, stored.size, stored.layer + 1)


def _left(caches: dict[tuple[str, str], list[tuple[Stored, str]]]) -> tuple[LeftCache, ...]:
    found = []
    for (manager, path), files in caches.items():
        once = {(stored.layer, stored.number): stored.size for stored, _ in files}  # hard links take no space
        layers = tuple(sorted({layer + 1 for layer, _ in once}))
        found.append(LeftCache(manager, path, len(files), sum(once.values()), layers, files[0][1]))
    return tuple(sorted(found, key=lambda one: (-one.size, one.path)))
