"""Layers by their diff IDs: which blob holds one, and where it can be fetched.

A base image's layers are known before they are here: `ensure_blob` fetches one when somebody needs its bytes, once,
however many threads or processes ask.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from builder.boot import current_boot
from builder.config import ArchiveLimits
from builder.errors import BuilderError, Interrupted, LayerError, StoreError, store_error
from builder.filesystem.compression import Compression, kind_of
from builder.filesystem.locks import Wait, exclusive
from builder.oci.layout import Layout
from builder.oci.spec import Descriptor
from builder.progress import Check, unchecked
from builder.store.records import LayerRecord

if TYPE_CHECKING:
    from builder.filesystem.compress import LayerBlob
    from builder.filesystem.readable import Readable
    from builder.store.database import Database
    from builder.store.settle import Settling

Fetch = Callable[[str, Descriptor, BinaryIO], None]
"""Fetches a blob: the reference it belongs to, its descriptor, the file that takes the verified bytes. The file is at
its start, and may hold a beginning of the blob, which an earlier transfer left."""

CACHE = "cache:"
"""Begins the origin of a layer that a build cache claims to have."""


def is_claim(record: LayerRecord) -> bool:
    """Whether only a build cache says that this blob holds this layer. Nothing is done with the blob as that layer
    before its content was compared with the diff ID; the record then has the layer's size, and is a claim no more."""
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
    reads a layer to its end."""

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
        self._named: dict[str, LayerRecord] = {}  # by diff ID, before the database is opened
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
                for record in self._named.values():
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

    def know(self, diff_id: str, descriptor: Descriptor, origin: str = "") -> None:
        """Remember that `descriptor` holds the layer, and the reference that it can be fetched from; '' for an image
        of the store."""
        record = LayerRecord(diff_id, descriptor.digest, descriptor.media_type, descriptor.size, origin)
        if not origin:
            with self._opening:
                # Of two forms of one layer, either may be another's lie: the database knows what was unpacked here.
                if self._opened is None and self._named.setdefault(diff_id, record) == record:
                    return
        else:  # only what is noted here says where it is: a collection must not be about to forget it
            self._layout.pin(diff_id)
        _note(self._database, record)

    def offer(self, diff_id: str, descriptor: Descriptor, origin: str) -> None:
        """Remember that a build cache at `origin` claims to hold the layer, unless it is here or an image has it."""
        record = self.record(diff_id)
        if record is None or is_claim(record):
            self._database.add_layer(
                LayerRecord(diff_id, descriptor.digest, descriptor.media_type, descriptor.size, CACHE + origin)
            )

    def ensure_form(self, diff_id: str, compression: Compression | None) -> LayerRecord:
        """The layer's blob in a compression (None: whatever there is), compressed anew if it is here in others only."""
        if compression is None:
            return self.ensure_blob(diff_id)
        named = self._named_here(diff_id)
        if named is not None and kind_of(named.media_type) == compression.kind:
            return named
        found = self._form_here(diff_id, compression.kind)
        if found is not None:
            return found
        with self._once(f"{diff_id}-{compression.kind}"):
            return self._form_here(diff_id, compression.kind) or self._compress(diff_id, compression)

    def _form_here(self, diff_id: str, kind: str) -> LayerRecord | None:
        """The best form in a compression that is here; none that nobody has read where another one was read: the former
        may be a lie."""
        here = sorted((one for one in self._database.layers(diff_id) if self.is_here(one)), key=_trust)
        trusted = [one for one in here if one.uncompressed] or here
        return next((one for one in trusted if kind_of(one.media_type) == kind), None)

    def _compress(self, diff_id: str, compression: Compression) -> LayerRecord:
        from builder.filesystem.compress import LayerSink

        with LayerSink(
            self._layout.temporary, compression=compression.kind, level=compression.level, sync=False
        ) as sink:
            stream = self.open_tar(diff_id)
            while piece := stream.read(1 << 20):
                sink.write(piece)
            blob = sink.finish()
        if blob.diff_id != diff_id:
            raise StoreError(f"layer {diff_id} is damaged", place=self._layout.path, remedy="run 'builder fsck'")
        self.add(blob)
        return LayerRecord(blob.diff_id, blob.digest, blob.media_type, blob.size, uncompressed=blob.uncompressed_size)

    def record(self, diff_id: str) -> LayerRecord | None:
        """The best stored form of a layer: one that is here before one that must be fetched. None without either.

        Forms that were made or unpacked here come first: what others hold is only claimed by an image's configuration,
        and after these by a build cache.
        """
        self._layout.pin(diff_id)
        named = self._named_here(diff_id)
        if named is not None:
            return named
        records = sorted(self._database.layers(diff_id), key=_trust)
        for record in records:
            if self.is_here(record):
                return record
        return next((record for record in records if record.origin), None)

    def _named_here(self, diff_id: str) -> LayerRecord | None:
        """The form in which an image of the store has a layer, if the blob is here and nothing else was asked yet that
        the database has to answer."""
        named = self._named.get(diff_id) if self._opened is None else None
        return named if named is not None and self.is_here(named) else None

    def note_size(self, record: LayerRecord, size: int) -> None:
        """Keep how long the layer of a form is uncompressed, in bytes."""
        self._database.add_layer(msgspec.structs.replace(record, uncompressed=size))

    def available(self, diff_id: str) -> bool:
        """Whether the layer's bytes are here or can be fetched."""
        return self.record(diff_id) is not None

    def ensure_blob(self, diff_id: str) -> LayerRecord:
        """The layer's blob, fetched if it is not here. Raises StoreError, RegistryError; MissingLayer if nobody has it,
        or only caches that do not keep what they promised."""
        failure: BuilderError | None = None
        while True:
            record = self._required(diff_id, failure)
            try:
                self.fetch_form(record)
                return record
            except BuilderError as error:
                if isinstance(error, Interrupted) or not record.origin.startswith(CACHE):
                    raise
                failure = error
                self._database.forget_blobs([record])

    def fetch_form(self, record: LayerRecord) -> bool:
        """Have this very blob here, whatever other forms of its layer there are. Whether it had to be fetched."""
        if self.is_here(record):
            return False
        with self._once(record.digest):
            if not self._layout.has(record.digest):
                self._fetch_blob(record)
                return True
            if is_claim(record):  # the blob came for another reason
                self._check_claim(record, self._layout.blob_path(record.digest))
        return False

    def is_here(self, record: LayerRecord) -> bool:
        """Whether this form of a layer is in the store, and known to be that."""
        return not is_claim(record) and self._layout.has(record.digest)

    def _check_claim(self, record: LayerRecord, path: str) -> None:
        """Find out whether a file with a blob's bytes holds the layer that a cache says it does. Raises LayerError."""
        import hashlib

        from builder.filesystem.decompress import decompressor

        hasher = hashlib.sha256()
        with open(path, "rb") as file:
            stream = decompressor(file, limits=self._limits(), place=record.digest)
            while piece := stream.read(1 << 20):
                hasher.update(piece)
        if f"sha256:{hasher.hexdigest()}" != record.diff_id:
            raise LayerError(
                f"{record.origin.removeprefix(CACHE)} gives blob {record.digest} as layer {record.diff_id}, but its"
                f" content is sha256:{hasher.hexdigest()}"
            )
        self.note_size(record, stream.total)

    def _fetch_blob(self, record: LayerRecord) -> None:
        """Fetch a blob, from where a transfer that was cut short left off; what is fetched of it is kept then."""
        path = os.path.join(self._partial, record.digest.partition(":")[2])
        complete = False
        try:
            os.makedirs(self._partial, mode=0o700, exist_ok=True)
            with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "r+b") as file:
                self.fetch(record.origin, Descriptor(record.media_type, record.digest, record.size), file)
                file.flush()
                os.fsync(file.fileno())
            if is_claim(record):
                self._check_claim(record, path)
            self._layout.adopt(path, record.digest)
            self.wrote = complete = True
        except LayerError:
            os.unlink(path)
            raise
        except OSError as error:
            with suppress(OSError):  # a disk that is full needs the space more than the next call needs the beginning
                os.unlink(path)
            raise store_error(f"cannot store blob {record.digest}", error, self._layout.path) from error
        finally:
            if not complete:
                with suppress(OSError):
                    if not os.path.getsize(path):
                        os.unlink(path)

    def open_tar(self, diff_id: str) -> Readable:
        """The layer's uncompressed tar stream."""
        record = self.ensure_blob(diff_id)
        from builder.filesystem.decompress import decompressor

        return decompressor(self._layout.open(record.digest), check=self.check)

    def _required(self, diff_id: str, failure: BuilderError | None = None) -> LayerRecord:
        record = self.record(diff_id)
        if record is None:
            raise MissingLayer((diff_id,), self._layout.path, failure)
        return record

    @contextmanager
    def _once(self, digest: str) -> Iterator[None]:
        path = os.path.join(self._layout.temporary, f"fetch-{digest.partition(':')[2]}.lock")
        with exclusive(path, self.waiting(digest)):
            yield


def _note(database: Database, record: LayerRecord) -> None:
    """Keep what an image says of a layer, unless that is known."""
    known = [one for one in database.layers(record.diff_id) if not is_claim(one)]
    if not any(one.digest == record.digest and (one.origin or not record.origin) for one in known):
        database.add_layer(record)


def _trust(record: LayerRecord) -> tuple[bool, bool]:
    return not record.uncompressed, record.origin.startswith(CACHE)


def _nowhere(origin: str, descriptor: Descriptor, file: BinaryIO) -> None:
    raise StoreError(f"blob {descriptor.digest} of {origin} is not in the store, and nothing was set up to fetch it")
