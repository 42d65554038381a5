"""Removes what nothing needs any more: blobs, unpacked layers, and the records that describe them.

Needed is what can be reached from `index.json`, from the step cache and its memos (base images that were fetched,
downloads), and what running builds hold by their leases. A collection may run at any time beside builds. It first
sets aside, by renaming, everything that nobody needs, in a moment in which no build can begin to use it; the removing
itself, which may take long, follows after, and the records come last: a record of what is gone does no harm.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable

import msgspec

from builder.errors import StoreError, lacks_room, store_error
from builder.filesystem.locks import Wait
from builder.oci.digests import is_sha256
from builder.oci.layout import Layout
from builder.oci.spec import Descriptor
from builder.store.leases import frozen
from builder.store.record_names import REPEATS
from builder.store.records import Holding, LayerRecord
from builder.store.room import room_to_remove
from builder.store.store import Store, remove_tree

_LARGEST_DOCUMENT = 8 << 20  # bytes
_BEGINNINGS = frozenset((b"{", b" ", b"\t", b"\r", b"\n"))
"""What a JSON object may begin with (RFC 8259: white space may be before it); a layer begins with none of these."""
_GONE = "gone."


class _Document(msgspec.Struct, rename="camel"):
    """What manifests, indexes and configurations point at. Only a manifest's `config` is a descriptor."""

    config: msgspec.Raw = msgspec.Raw()
    layers: list[Descriptor] | None = None
    manifests: list[Descriptor] | None = None
    blobs: list[Descriptor] | None = None
    subject: Descriptor | None = None
    rootfs: _RootFS | None = None


class _RootFS(msgspec.Struct):
    diff_ids: list[str] | None = None


class Needed(msgspec.Struct):
    """The blobs (by digest) and layers (by diff ID) that something needs."""

    blobs: set[str] = msgspec.field(default_factory=set)
    diff_ids: set[str] = msgspec.field(default_factory=set)


class Collected(msgspec.Struct, frozen=True):
    """What a collection removed: bytes on the disk, how many blobs and how many unpacked layers."""

    size: int = 0
    blobs: int = 0
    snapshots: int = 0


class Walker:
    """Follows descriptors through a layout. Blobs that are not there end the walk; documents are read once.

    What cannot be read raises StoreError, as nobody knows what it needs; `lenient` walks end there too, for those that
    remove nothing."""

    def __init__(self, layout: Layout, *, lenient: bool = False) -> None:
        self._layout = layout
        self._lenient = lenient
        self._read: dict[str, tuple[list[str], list[str]]] = {}

    def reach(self, roots: Iterable[str], needed: Needed) -> None:
        """Add what the digests `roots` need; a diff ID among them counts as a layer."""
        waiting = list(roots)
        while waiting:
            digest = waiting.pop()
            if digest in needed.blobs:
                continue
            needed.blobs.add(digest)
            blobs, diff_ids = self._children(digest)
            needed.diff_ids.update(diff_ids)
            waiting.extend(blobs)

    def layers(self, digest: str) -> list[str]:
        """The layers' digests of a manifest; [] for anything else."""
        document = self._document(digest)
        return [layer.digest for layer in document.layers or ()] if document else []

    def _children(self, digest: str) -> tuple[list[str], list[str]]:
        known = self._read.get(digest)
        if known is None:
            known = self._read[digest] = self._parse(digest)
        return known

    def _parse(self, digest: str) -> tuple[list[str], list[str]]:
        document = self._document(digest)
        if document is None:
            return [], []
        pointed = [*(document.layers or ()), *(document.manifests or ()), *(document.blobs or ())]
        pointed += [one for one in (document.subject, _descriptor(document.config)) if one is not None]
        diff_ids = (document.rootfs.diff_ids if document.rootfs else None) or []
        return [one.digest for one in pointed], diff_ids

    def _document(self, digest: str) -> _Document | None:
        if not is_sha256(digest):
            return None  # the store keeps no others
        path = self._layout.blob_path(digest)
        try:
            with open(path, "rb") as file:
                if os.fstat(file.fileno()).st_size > _LARGEST_DOCUMENT:
                    return None
                first = file.read(1)
                return _decode(first + file.read()) if first in _BEGINNINGS else None
        except FileNotFoundError:
            return None
        except OSError as error:
            if self._lenient:
                return None
            raise StoreError(
                f"cannot read what an image needs: {error.strerror}", place=path, remedy="run 'builder fsck'"
            ) from error


def needed(store: Store, holdings: Iterable[Holding], pins: frozenset[str]) -> Needed:
    """What the images, these steps and memos, and the leases need."""
    layout = Layout(store.root, store.temporary)  # one that pins nothing
    held = {*pins, *(holding.holds for holding in holdings)}
    found = Needed(diff_ids=set(held))
    forms = [record.digest for record in store.database.all_layers() if record.diff_id in held]
    Walker(layout).reach([*(entry.digest for entry in layout.index().manifests), *held, *forms], found)
    return found


def collect(store: Store) -> Collected:
    """Remove what nothing needs. Must not be called under a lease of the same process's own. Raises StoreError."""
    with room_to_remove(store):
        return sweep(store)


def sweep(store: Store, doomed: Collection[Holding] = (), wait: Wait | None = None) -> Collected:
    """`collect` for who has seen to room on a full disk. The steps and memos `doomed`, which are about to be forgotten,
    keep nothing; one that is used just now is another. `wait` waits for another collection."""
    passing = set(doomed)
    try:
        with frozen(store.leases, wait) as pins:
            kept = needed(store, (one for one in store.database.holdings() if one not in passing), pins)
            blobs = [*_set_blobs_aside(store, kept), *_set_partial_aside(store, kept)]
            snapshots = store.set_snapshots_aside(kept.diff_ids)
            gone = [record for record in store.database.all_layers() if _is_gone(record, kept)]
        size = sum(os.lstat(path).st_size for path in blobs) + sum(tree_size(path) for path in snapshots)
        for path in (*blobs, *snapshots):
            remove_tree(path) if os.path.isdir(path) else os.unlink(path)
        _remove_notes(store)
    except OSError as error:
        raise store_error("cannot remove", error, error.filename or store.root) from error
    _forget(store, gone)
    return Collected(size, len(blobs), len(snapshots))


def _remove_notes(store: Store) -> None:
    """Remove the notes of builds, most of which may no longer be repeated. The directory stays: a build may leave one
    there just now."""
    from builder.filesystem.syscalls import empty_directory

    with contextlib.suppress(FileNotFoundError):
        empty_directory(os.path.join(store.root, REPEATS))


def _forget(store: Store, gone: list[LayerRecord]) -> None:
    """Forget layers whose blobs were removed. That comes last, because the database grows by it for a while, and until
    then the disk may be full."""
    if not gone:
        return
    layout = Layout(store.root, store.temporary)
    with frozen(store.leases) as pins:  # a build may have made one of them again
        try:
            store.database.forget_blobs(
                record
                for record in gone
                if not pins & {record.digest, record.diff_id} and not layout.has(record.digest)
            )
        except StoreError as error:
            if not lacks_room(error):  # then the next collection does it
                raise


def tree_size(path: str) -> int:
    """The bytes of all files below a directory; hard links count once."""
    total = 0
    seen: set[int] = set()
    waiting = [path]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    info = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif info.st_nlink == 1 or info.st_ino not in seen:
                        seen.add(info.st_ino)
                        total += info.st_size
        except OSError:
            continue  # it went away meanwhile, or is nobody's business
    return total


def _set_blobs_aside(store: Store, kept: Needed) -> list[str]:
    aside = []
    layout = Layout(store.root, store.temporary)
    for digest in layout.digests():
        if digest not in kept.blobs:
            path = os.path.join(store.temporary, f"{_GONE}{os.urandom(8).hex()}")
            os.rename(layout.blob_path(digest), path)
            aside.append(path)
    return aside


def _set_partial_aside(store: Store, kept: Needed) -> list[str]:
    """Beginnings of blobs that nobody needs, which transfers that were cut short left."""
    aside = []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(store.partial):
            if f"sha256:{name}" not in kept.blobs:
                path = os.path.join(store.temporary, f"{_GONE}{os.urandom(8).hex()}")
                os.rename(os.path.join(store.partial, name), path)
                aside.append(path)
    return aside


def _is_gone(record: LayerRecord, kept: Needed) -> bool:
    """Whether a record is worth nothing: its blob is not here, and it cannot be fetched or nobody asks for it."""
    return record.digest not in kept.blobs and (not record.origin or record.diff_id not in kept.diff_ids)


def _descriptor(data: msgspec.Raw) -> Descriptor | None:
    try:
        return msgspec.json.decode(data, type=Descriptor) if bytes(data) else None
    except msgspec.MsgspecError:
        return None


def _decode(data: bytes) -> _Document | None:
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


_DECODER = msgspec.json.Decoder(_Document)
