"""Unpacked layers: the directories, or EROFS images, that steps have for their files.

A stack of layers is unpacked when something must see its files, from the lowest up, while others still arrive. That is
done once, however many threads or processes ask.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO

from builder.config import ArchiveLimits
from builder.errors import BuilderError, Interrupted, LayerError
from builder.oci.layout import Layout
from builder.store.layers import CACHE, Failed, Layers, MissingLayer
from builder.store.records import LayerRecord

if TYPE_CHECKING:
    from builder.filesystem.compress import LayerBlob
    from builder.filesystem.decompress import Reader
    from builder.filesystem.layer_facts import LayerFacts
    from builder.filesystem.layered import LayeredTree
    from builder.filesystem.snapshots import Snapshots
    from builder.store.arriving import Arriving, Following

_SMALL = 64 << 10
"""Bytes of a blob that holds some hundred files at most."""


class UnpackedLayers:
    """The unpacked layers of one store."""

    def __init__(
        self,
        layers: Layers,
        layout: Layout,
        snapshots: Callable[[], Snapshots],
        partial: str,
        limits: Callable[[], ArchiveLimits] = ArchiveLimits,
    ) -> None:
        """`snapshots` opens those of the store; `partial` is the directory for blobs whose transfer was cut short, and
        `limits` bound what is unpacked."""
        self._layers = layers
        self._layout = layout
        self._open_snapshots = snapshots
        self._partial = partial
        self._limits = limits
        self._stacks: dict[tuple[str, ...], list[str]] = {}
        self._facts: dict[str, LayerFacts] = {}

    def forget_paths(self) -> None:
        """Look for snapshots anew: nobody kept them from being removed meanwhile."""
        self._stacks.clear()
        self._facts.clear()

    @cached_property
    def _snapshots(self) -> Snapshots:
        return self._open_snapshots()

    def directories(self, diff_ids: Sequence[str]) -> list[str]:
        """The unpacked layers of a stack, given lowest first; the directories come top first, as overlays want them."""
        return self._seen(self.paths(diff_ids))

    def _seen(self, paths: Sequence[str]) -> list[str]:
        """Of directories given lowest first those that show, top first: none below one whose root is opaque.
        overlayfs takes no notice of that mark on a root, so those below must not be among its layers."""
        found = top_first(paths)
        return found[: next((at for at, directory in enumerate(found, 1) if self._has_opaque_root(directory)), None)]

    def _has_opaque_root(self, directory: str) -> bool:
        from builder.filesystem.layered import root_place

        facts = self._facts_of(directory)
        return (facts.place("") or facts.keep_place("", root_place(directory))) == "opaque"

    def paths(self, diff_ids: Sequence[str]) -> list[str]:
        """The directory of each layer of a stack, lowest first.

        Those that are not there are unpacked now, from the lowest up: a layer may leave out directories that those
        below it have, and takes over their owners and modes.
        """
        stack = tuple(diff_ids)
        start = len(stack)
        while start and stack[:start] not in self._stacks:
            start -= 1
        # A chain of steps asks for the same stack with one layer more each time.
        paths = list(self._stacks[stack[:start]]) if start else []
        arriving: Arriving | None = None
        try:
            for position, diff_id in enumerate(stack[start:], start):
                self._layout.pin(diff_id)
                below = self._seen(paths)
                path = self._snapshots.path(diff_id, below)
                if path is None:
                    arriving = arriving or self._fetch_ahead(stack[position:])
                    path = self._unpack(diff_id, below, arriving)
                paths.append(path)
        except MissingLayer as missing:  # name all at once: they may have to be made again, one by one
            others = [
                other for other in diff_ids if other not in missing.diff_ids and not self._layers.available(other)
            ]
            missing.diff_ids = (*missing.diff_ids, *others)
            raise
        finally:
            if arriving is not None:
                arriving.close()
        self._stacks[stack] = list(paths)
        return paths

    def _fetch_ahead(self, diff_ids: Sequence[str]) -> Arriving:
        """Begin to fetch the layers that are neither unpacked nor here, but not from a build cache: `ensure_blob` knows
        what to do without one that does not keep its promise."""
        from builder.store.arriving import Arriving

        records = [self._layers.record(diff_id) for diff_id in dict.fromkeys(diff_ids)]
        known = [one for one in records if one and not one.origin.startswith(CACHE) and not self._layers.is_claim(one)]
        absent = [one for one in known if not self._layers.is_here(one)]
        if absent:  # what is unpacked is asked for last: that looks through the directory of all
            unpacked = set(self._snapshots.entries.diff_ids([one.diff_id for one in absent]))
            absent = [one for one in absent if one.diff_id not in unpacked]
        return Arriving(absent, self._layers.fetch_form, self._partial)

    def _unpack(self, diff_id: str, below: Sequence[str], arriving: Arriving) -> str:
        """Unpack a layer, be it while it arrives. Of several forms, of which each but one may be another image's lie,
        the next is taken when one cannot be had, or turns out not to be the layer."""
        failed: Failed = {}
        arrival = arriving.record(diff_id)
        if arrival is not None:
            path = self._unpack_arriving(arrival, below, arriving)
            try:
                arriving.wait(diff_id)
            except Interrupted:
                raise
            except BuilderError as error:
                failed[arrival.digest] = error
            else:
                if path is not None:
                    return path
        while True:
            record = self._layers.ensure_blob(diff_id, failed=failed)
            try:
                with closing(self._blobs(record)) as blobs:
                    return self._unpack_streams(record, blobs, below)
            except LayerError as error:
                self._layers.refuse(record, error)
                failed[record.digest] = error

    def _unpack_arriving(self, record: LayerRecord, below: Sequence[str], arriving: Arriving) -> str | None:
        """Unpack a blob while it arrives; None if it is not on its way any more, or if it cannot be had so."""
        stream = arriving.stream(record.diff_id)
        if stream is None:
            return None
        with closing(stream), closing(self._blobs(record, arriving)) as blobs:
            try:
                return self._unpack_streams(record, chain((stream,), blobs), below)
            except LayerError:
                return None  # what had arrived was thrown away, or does not fit its digest: the fetch knows
            except BuilderError as error:
                if error is not arriving.failure(record.diff_id):
                    raise
                return None

    def _blobs(self, record: LayerRecord, arriving: Arriving | None = None) -> Generator[BinaryIO, None, None]:
        """A blob, once it is here, opened as often as it is asked for: always this very one, since what was read of it
        is noted."""
        if arriving is not None:
            arriving.wait(record.diff_id)
        while True:
            with self._layout.open(record.digest) as file:
                yield file

    def _unpack_streams(
        self, record: LayerRecord, streams: Iterator[Following | BinaryIO], below: Sequence[str]
    ) -> str:
        """Unpack a blob, the first of `streams` unless the next is needed too; of one that is read to its end for the
        first time the size is noted."""
        from builder.filesystem.decompress import decompressor

        limits = self._limits()
        reader: Reader | None = None

        def open_tar() -> Reader:
            nonlocal reader
            reader = decompressor(next(streams), limits=limits, place=record.digest, check=self._layers.check)
            return reader

        path = self._snapshots.unpack(
            record.diff_id,
            open_tar,
            below,
            max_entries=limits.entries or None,
            large=record.size > _SMALL,
            wait=self._layers.waiting(record.digest),
        )
        if not record.uncompressed and reader is not None and reader.total:
            self._layers.note_read(record, reader)
        return path

    def adopt(self, diff_id: str, upper: str, below: Sequence[str] = ()) -> str:
        """Make a step's upper directory the layer's snapshot; one that holds more than the layer, over the directories
        `below` alone. Returns the layer's directory."""
        self._layout.pin(diff_id)
        return self._snapshots.adopt(diff_id, upper, below)

    @property
    def takes_erofs(self) -> bool:
        """Whether an image of a layer (`ErofsLayer`) can be mounted by who needs its files."""
        return self._snapshots.takes_erofs

    def adopt_erofs(self, blob: LayerBlob, image: str) -> None:
        """Make an image of a layer what it is unpacked to, if that is worth it."""
        if blob.size > _SMALL:
            self._snapshots.adopt_erofs(blob.diff_id, image)

    def tree(self, diff_ids: Sequence[str]) -> LayeredTree:
        """The files of a stack of layers, given lowest first."""
        return self.tree_over(self.directories(diff_ids))

    def tree_over(self, directories: Sequence[str]) -> LayeredTree:
        """The files of a stack of directories, given top first."""
        from builder.filesystem.layered import LayeredTree

        return LayeredTree(directories, self._facts_of)

    def _facts_of(self, directory: str) -> LayerFacts:
        facts = self._facts.get(directory)
        if facts is None:
            from builder.filesystem.layer_facts import LayerFacts

            facts = self._facts.setdefault(directory, LayerFacts())
        return facts


def top_first(paths: Sequence[str]) -> list[str]:
    """Directories of layers as an overlay takes them: each once, since the upper of two equal ones hides the lower."""
    return list(dict.fromkeys(reversed(paths)))
