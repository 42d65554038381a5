"""Layers by their diff IDs: which blob holds one, and where it can be fetched.

A base image's layers are known before they are here: `ensure_blob` fetches one when somebody needs its bytes, once,
however many threads or processes ask.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from builder.boot import current_boot
from builder.config import ArchiveLimits
from builder.errors import BuilderError, Interrupted, LayerError, StoreError
from builder.filesystem.compression import Compression, kind_of
from builder.filesystem.locks import Wait, exclusive
from builder.oci.layout import Layout
from builder.oci.spec import Descriptor
from builder.progress import Check, unchecked
from builder.store.records import LayerRecord

if TYPE_CHECKING:
    from builder.filesystem.compress import LayerBlob
    from builder.filesystem.decompress import Reader
    from builder.filesystem.readable import Readable
    from builder.store.database import Database
    from builder.store.settle import Settling

Fetch = Callable[[str, Descriptor, BinaryIO], None]
"""Fetches a blob: the reference it belongs to, its descriptor, the file that takes the verified bytes. The file is at
its start, and may hold a beginning of the blob, which an earlier transfer left."""

Failed = dict[str, BuilderError]
"""Why forms of a layer cannot be had, by the digests of their blobs."""

CACHE = "cache:"
"""Begins the origin of a layer that a build cache claims to have."""


def is_offer(record: LayerRecord) -> bool:
    """Whether only a build cache says that this blob holds this layer."""
    return record.origin.startswith(CACHE) and not record.uncompressed


class MissingLayer(StoreError):
    """Layers (`diff_ids`) are not here and cannot be fetched, for one of them because of a `failure`. Whoever knows how
    they were made may make them again."""

    def __init__(self, diff_ids: Sequence[str], path: str, failure: BuilderError | None = None) -> None:
        super().__init__(
            f"layer {', '.join(diff_ids)} is missing from the store",
            place=path,
            remedy="build with --no-cache",
            details=(f"  {failure}",) if failure is not None else (),
        )
        self.diff_ids = tuple(diff_ids)
        self.failure = failure


class Layers:
    """The layers of one store. `fetch` brings a blob from where its record says it comes from; `waiting` makes, of the
    digest of a blob that another process fetches or unpacks, what waits for that; `check` ends by what it raises what
    reads a layer to its end.

    Any image may state the diff ID of another's layer over a blob of its own, so a layer has forms of unequal standing.
    One is proved when its content was compared with the diff ID, as that of what is made here is. One is stated when an
    image that was asked for through this object says so (`know`): it serves for that image. Any other is a claim.
    """

    def __init__(
        self,
        layout: Layout,
        database: Callable[[], Database],
        partial: str,
        limits: Callable[[], ArchiveLimits] = ArchiveLimits,
    ) -> None:
        """`database` opens the one of the store; `partial` is the directory for blobs whose transfer was cut short;
        `limits` bound what is read."""
        self._layout = layout
        self._open_database = database
        self._opened: Database | None = None
        self._opening = threading.Lock()
        self._stated: dict[str, dict[str, LayerRecord]] = {}  # by diff ID, then by blob
        self._refused: dict[str, Failed] = {}  # by diff ID
        self._partial = partial
        self._limits = limits
        self.fetch: Fetch = _nowhere
        self.waiting: Callable[[str], Wait | None] = lambda _: None
        self.check: Check = unchecked
        self._boot = current_boot()
        self.wrote = False
        """Whether a blob was written or fetched."""

    @property
    def _database(self) -> Database:
        """The database, opened when it is first needed: a build without steps looks at nothing but layers that images
        here name, and what an image names is on the disk."""
        with self._opening:
            if self._opened is None:
                database = self._open_database()
                self._settling(database).recover()
                for forms in self._stated.values():
                    for record in forms.values():
                        _note(database, record)
                self._opened = database
            return self._opened

    def open(self) -> None:
        """Open the database now, if something will ask it: what is wrong with it is no fault of who asks first."""
        _ = self._database

    def settle(self) -> None:
        """Flush layers to the disk that are not yet: before anything but the cache names them."""
        self._settling(self._database).settle()

    def _settling(self, database: Database) -> Settling:
        from builder.store.settle import Settling

        return Settling(self._layout, database, self._boot)

    def add(self, blob: LayerBlob) -> None:
        """Keep a finished layer: its temporary file, which need not be flushed, becomes a blob of the store unless that
        has it."""
        self._layout.pin(blob.diff_id)
        self.wrote = True
        record = LayerRecord(blob.diff_id, blob.digest, blob.media_type, blob.size, uncompressed=blob.uncompressed_size)
        self._settling(self._database).adopt(blob.path, record)

    def know(self, diff_id: str, descriptor: Descriptor, origin: str = "") -> LayerRecord:
        """Remember that an image which is asked for states `descriptor` as the layer, and the reference that it can be
        fetched from; '' for an image of the store. Returns that form, for `ensure_form`."""
        record = LayerRecord(diff_id, descriptor.digest, descriptor.media_type, descriptor.size, origin)
        with self._opening:
            stated = self._stated.setdefault(diff_id, {})
            if origin or record.digest not in stated:
                stated[record.digest] = record
            if self._opened is None and not origin:
                return record
        if origin:  # only what is noted here says where it is: a collection must not be about to forget it
            self._layout.pin(diff_id)
        _note(self._database, record)
        return record

    def offer(self, diff_id: str, descriptor: Descriptor, origin: str) -> None:
        """Remember that a build cache at `origin` claims to hold the layer, unless it is here or the same blob is an
        image's."""
        record = self.record(diff_id)
        doubted = record is not None and not record.uncompressed and record.digest != descriptor.digest
        if record is None or doubted or self.is_claim(record):
            self._database.add_layer(
                LayerRecord(diff_id, descriptor.digest, descriptor.media_type, descriptor.size, CACHE + origin)
            )

    # --- which form

    def is_claim(self, record: LayerRecord) -> bool:
        """Whether only a build cache, or an image that nobody asked for, says that this blob holds this layer. Nothing
        is done with the blob as that layer before its content was compared with the diff ID; the record then has the
        layer's size, and is a claim no more."""
        return not record.uncompressed and record.digest not in self._stated.get(record.diff_id, ())

    def _is_doubtful(self, record: LayerRecord) -> bool:
        return self.is_claim(record) or record.origin.startswith(CACHE)

    def is_here(self, record: LayerRecord) -> bool:
        """Whether this form of a layer is in the store, and more than a claim."""
        return not self.is_claim(record) and self._layout.has(record.digest)

    def record(self, diff_id: str) -> LayerRecord | None:
        """The best form of a layer that is here or can be fetched. None without any."""
        self._layout.pin(diff_id)
        return self._only_stated(diff_id) or next(iter(self.forms(diff_id)), None)

    def forms(self, diff_id: str) -> list[LayerRecord]:
        """The forms of a layer that are here or can be fetched, the best first: proved ones that are here, stated ones
        that are, those to be fetched, and claims last. None that turned out to be wrong."""
        stated, refused = self._stated.get(diff_id, {}), self._refused.get(diff_id, ())
        ranked = []
        for record in self._database.layers(diff_id):
            said = stated.get(record.digest)
            if said is not None:
                known = (
                    record if record.uncompressed else said
                )  # another image may have said something else of the blob
                origin, size = said.origin or record.origin, record.uncompressed
                record = msgspec.structs.replace(known, origin=origin, uncompressed=size)
            rank = self._rank(record)
            if rank is not None and record.digest not in refused:
                ranked.append((rank, record))
        ranked.sort(key=lambda one: one[0])
        return [record for _, record in ranked]

    def _rank(self, record: LayerRecord) -> tuple[int, ...] | None:
        """What orders the forms of a layer; None for one that nobody has."""
        here = self._layout.has(record.digest)
        if not here and not record.origin:
            return None
        if self.is_claim(record):
            return (3, 0) if here else (3, 1, not record.origin.startswith(CACHE))
        unstated = record.digest not in self._stated.get(record.diff_id, ())
        return (0, not record.uncompressed, unstated) if here else (1, unstated, not record.uncompressed)

    def _only_stated(self, diff_id: str) -> LayerRecord | None:
        """The form in which an image of the store has a layer, if that blob is here, no other image states another one,
        and nothing else was asked yet that the database has to answer."""
        stated = self._stated.get(diff_id, {}) if self._opened is None else {}
        return next((one for one in stated.values() if len(stated) == 1 and self._layout.has(one.digest)), None)

    def available(self, diff_id: str) -> bool:
        """Whether the layer's bytes are here or can be fetched."""
        return self.record(diff_id) is not None

    def refuse(self, record: LayerRecord, error: BuilderError) -> None:
        """Do without a form whose content is not the layer, or none at all, as `error` says. A claim, and what a cache
        has, is forgotten."""
        if self._is_doubtful(record):
            self._database.forget_blobs([record])
        else:
            self._refused.setdefault(record.diff_id, {})[record.digest] = error

    # --- having it here

    def ensure_form(
        self, diff_id: str, compression: Compression | None, stated: LayerRecord | None = None
    ) -> LayerRecord:
        """The layer's blob in a compression (None: whatever there is), compressed anew if it is here in others only.

        The blob is the one that `stated` names, if the layer is that of an image that states it, or a proved one: then
        the image can be given on under its name, as with BuildKit, which keeps the descriptors of its base.
        """
        failed: Failed = {}
        if stated is not None and (compression is None or kind_of(stated.media_type) == compression.kind):
            record = self._ensure_stated(stated, compression, failed)
            if record is not None:
                return record
        if compression is None:
            return self.ensure_blob(diff_id, proved=True, failed=failed)
        found = self._proved_form(diff_id, compression)
        if found is not None:
            return found
        with self._once(f"{diff_id}-{compression.kind}"):
            return self._proved_form(diff_id, compression) or self._compress(diff_id, compression)

    def _ensure_stated(
        self, stated: LayerRecord, compression: Compression | None, failed: Failed
    ) -> LayerRecord | None:
        """The form that an image states, fetched if it is not here; or one that is here and proved, if that one is not.
        None if it cannot be had: `failed` then says why."""
        self._layout.pin(stated.diff_id)
        if self._opened is None and self._layout.has(stated.digest):
            return stated
        refused = self._refused.get(stated.diff_id, {}).get(stated.digest)
        forms = {record.digest: record for record in self.forms(stated.diff_id)}
        known = forms.get(stated.digest, stated)
        if not known.uncompressed or refused is not None:
            proved = _proved(forms.values(), compression, self.is_here)
            if proved is not None:
                return proved
        record = msgspec.structs.replace(stated, origin=stated.origin or known.origin, uncompressed=known.uncompressed)
        if refused is None and (record.origin or self._layout.has(record.digest)):
            try:
                return self._have(record)[0]
            except Interrupted:
                raise
            except BuilderError as error:
                failed[record.digest] = error
        return None

    def _proved_form(self, diff_id: str, compression: Compression) -> LayerRecord | None:
        return _proved(self.forms(diff_id), compression, self.is_here)

    def _compress(self, diff_id: str, compression: Compression) -> LayerRecord:
        while True:
            record = self.ensure_blob(diff_id)
            try:
                return self._compress_form(record, compression)
            except LayerError as error:
                self.refuse(record, error)

    def _compress_form(self, record: LayerRecord, compression: Compression) -> LayerRecord:
        from builder.store.transfer import compress_form

        blob, stream = compress_form(self._layout, record, compression, self.check)
        self.add(blob)
        if not record.uncompressed:
            self.note_read(record, stream)
        return LayerRecord(blob.diff_id, blob.digest, blob.media_type, blob.size, uncompressed=blob.uncompressed_size)

    def note_read(self, record: LayerRecord, stream: Reader) -> LayerRecord:
        """Keep that a form's content was compared with its diff ID: `stream` read all of it. Returns the form as it
        is, whatever was said of its compression and its size."""
        from builder.store.transfer import as_read

        record = as_read(self._layout, record, stream)
        self._database.add_layer(record)
        return record

    def ensure_blob(self, diff_id: str, *, proved: bool = False, failed: Failed | None = None) -> LayerRecord:
        """A blob of the layer, fetched if it is not here; with `proved` one whose content was compared with the diff
        ID. What `failed` says of some forms keeps them from being tried; where one cannot be had, or is not what it
        should be, it is the next one's turn. Raises what the first failed with; MissingLayer if nobody has the layer,
        or only those who claim so and do not keep what they promised."""
        failed = {} if failed is None else failed
        while True:
            record = self._next(diff_id, failed)
            try:
                return self._have(record, proved=proved)[0]
            except Interrupted:
                raise
            except BuilderError as error:
                doubtful = self._is_doubtful(record)
                if isinstance(error, LayerError) or record.origin.startswith(CACHE):
                    self.refuse(record, error)
                failed[record.digest] = MissingLayer((diff_id,), self._layout.path, error) if doubtful else error

    def _next(self, diff_id: str, failed: Failed) -> LayerRecord:
        record = self.record(diff_id)
        if record is not None and record.digest in failed:
            record = next((one for one in self.forms(diff_id) if one.digest not in failed), None)
        if record is None:
            errors = [*self._refused.get(diff_id, {}).values(), *failed.values()]
            missing = MissingLayer((diff_id,), self._layout.path)
            raise min(errors, key=lambda error: isinstance(error, MissingLayer), default=missing)
        return record

    def fetch_form(self, record: LayerRecord) -> bool:
        """Have this very blob here, whatever other forms of its layer there are. Whether it had to be fetched."""
        return self._have(record)[1]

    def _have(self, record: LayerRecord, *, proved: bool = False) -> tuple[LayerRecord, bool]:
        """Have this blob here, as the layer: a claim, and with `proved` any form, must have its content. Whether it had
        to be fetched."""
        doubtful = not record.uncompressed and (proved or self.is_claim(record))
        if not doubtful and self._layout.has(record.digest):
            return record, False
        with self._once(record.digest):
            if not self._layout.has(record.digest):
                return self._fetch_blob(record, doubtful), True
            return self._prove(record, self._layout.blob_path(record.digest)) if doubtful else record, False

    def _fetch_blob(self, record: LayerRecord, doubtful: bool) -> LayerRecord:
        from builder.store.transfer import fetch_blob

        descriptor = Descriptor(record.media_type, record.digest, record.size)

        def check(path: str) -> None:
            nonlocal record
            if doubtful:
                record = self._prove(record, path)

        fetch_blob(
            self._layout, self._partial, record.digest, lambda file: self.fetch(record.origin, descriptor, file), check
        )
        self.wrote = True
        return record

    def _prove(self, record: LayerRecord, path: str) -> LayerRecord:
        """Find out whether a file with a blob's bytes holds the layer, and note it. Raises LayerError."""
        from builder.store.transfer import check_content

        source = record.origin.removeprefix(CACHE) or "an image"
        return self.note_read(record, check_content(record, path, source, self._limits()))

    def open_tar(self, diff_id: str) -> Readable:
        """The layer's uncompressed tar stream."""
        record = self.ensure_blob(diff_id, proved=True)
        from builder.filesystem.decompress import decompressor

        return decompressor(self._layout.open(record.digest), check=self.check)

    @contextmanager
    def _once(self, digest: str) -> Iterator[None]:
        path = os.path.join(self._layout.temporary, f"fetch-{digest.partition(':')[2]}.lock")
        with exclusive(path, self.waiting(digest)):
            yield


def _note(database: Database, record: LayerRecord) -> None:
    """Keep what an image says of a layer, unless that is known."""
    known = [one for one in database.layers(record.diff_id) if not is_offer(one)]
    if not any(one.digest == record.digest and (one.origin or not record.origin) for one in known):
        database.add_layer(record)


def _proved(
    forms: Iterable[LayerRecord], compression: Compression | None, is_here: Callable[[LayerRecord], bool]
) -> LayerRecord | None:
    """The first proved form that is here, in a compression if one is asked for."""
    fitting = (one for one in forms if compression is None or kind_of(one.media_type) == compression.kind)
    return next((one for one in fitting if one.uncompressed and is_here(one)), None)


def _nowhere(origin: str, descriptor: Descriptor, file: BinaryIO) -> None:
    raise StoreError(f"blob {descriptor.digest} of {origin} is not in the store, and nothing was set up to fetch it")
