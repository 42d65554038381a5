"""What the parts of `builder fsck` share: how far it may go, what it found, and where it puts what is of no use."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from builder.boot import current_boot
from builder.config import ArchiveLimits
from builder.errors import StoreError
from builder.oci.layout import Layout
from builder.store.database_errors import failure, finds_disk_full, is_damage
from builder.store.leases import frozen
from builder.store.records import LayerRecord

if TYPE_CHECKING:
    from builder.store.check_layers import Content

QUARANTINE = "quarantine"

LEFTOVER = "leftover"
"""What a killed process, a power failure or a collection left: nobody misses it, and it does no harm."""
DAMAGE = "damage"
"""Something that is not as it was written, or that points at what is not there."""


class Problem(msgspec.Struct, frozen=True):
    """One finding. `area` is layout, blob, image, record, snapshot, build, failed, mount, lease or temporary; `place`
    names the thing; `repair` says what was done about it ('': nothing); `remedy` what else is to be done."""

    area: str
    place: str
    cause: str
    severity: str = DAMAGE
    repair: str = ""
    remedy: str = ""


class Depth(msgspec.Struct, frozen=True):
    """How far a check goes. `repair` mends what nobody misses, `drop` takes away the names of images that are lost,
    `deep` compares contents, too."""

    repair: bool = False
    drop: bool = False
    deep: bool = False


Progress = Callable[[str, int, int], object]
"""Is told what is being looked at, how much of it is done, and of how much (bytes or things)."""


Fetch = Callable[[LayerRecord], object]
"""Brings a layer's blob from where its record says that it comes from. Raises BuilderError."""


def _open(path: str, mode: str, *settings: str, timeout: float = 60) -> sqlite3.Connection:
    """A connection that has read something; others are waited for `timeout` seconds. Raises sqlite3.Error."""
    from urllib.parse import quote

    connection = sqlite3.connect(f"file:{quote(path)}?mode={mode}", uri=True, timeout=timeout, isolation_level=None)
    try:
        for statement in (*settings, "SELECT count(*) FROM sqlite_schema"):
            connection.execute(statement).fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


class Session:
    """One check of the store below `root`.

    `damaged` are the blobs that are not what their names say (and `index.json`, by its path), `contents` what the blobs
    of layers hold. `limits` bound what a layer may become uncompressed.
    """

    def __init__(self, root: str, depth: Depth, progress: Progress, fetch: Fetch | None, limits: ArchiveLimits) -> None:
        self.root = root
        self.depth = depth
        self.progress = progress
        self.fetch = fetch
        self.limits = limits
        self.layout = Layout(root)
        self.problems: list[Problem] = []
        self.damaged: set[str] = set()
        self.contents: dict[str, Content] = {}
        self.counts: dict[str, int] = {}
        self._records: list[LayerRecord] | None = None
        self._fetchable: dict[str, LayerRecord] | None = None
        self._unsettled: frozenset[str] | None = None

    def path(self, *names: str) -> str:
        return os.path.join(self.root, *names)

    def found(
        self, area: str, place: str, cause: str, *, severity: str = DAMAGE, repair: str = "", remedy: str = ""
    ) -> None:
        self.problems.append(Problem(area, place, cause, severity, repair, remedy))

    def is_here(self, digest: str) -> bool:
        """Whether a blob is here and holds what its name says."""
        try:
            return digest not in self.damaged and self.layout.has(digest)
        except StoreError:
            return False

    def holds(self, record: LayerRecord) -> bool:
        """Whether a record's blob is here and is that layer."""
        content = self.contents.get(record.digest)
        return self.is_here(record.digest) and (content is None or content.diff_id == record.diff_id)

    def fetchable(self, digest: str) -> LayerRecord | None:
        """The record that says where a layer's blob can be fetched."""
        if self._fetchable is None:
            self._fetchable = {record.digest: record for record in self.records if record.origin}
        return self._fetchable.get(digest)

    @property
    def records(self) -> list[LayerRecord]:
        """What the cache database knows of layers; nothing where it is damaged or not there."""
        if self._records is None:
            rows = self._rows("SELECT diff_id, digest, media_type, size, origin, uncompressed FROM layers")
            self._records = [LayerRecord(*row) for row in rows]
        return self._records

    @property
    def unsettled(self) -> frozenset[str]:
        """The blobs that an earlier boot of the machine did not flush: a power failure may have made holes in them, and
        no image names them. The next build looks at them before it believes them."""
        if self._unsettled is None:
            boot = current_boot()
            rows = self._rows("SELECT digest, boot FROM unsettled")
            self._unsettled = frozenset(digest for digest, written in rows if written != boot)
        return self._unsettled

    @contextlib.contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """The cache database; it is opened to be read only unless something is to be repaired. Raises sqlite3.Error
        where it is damaged, StoreError where it cannot be read or mended."""
        path = self.path("cache.db")
        try:
            with contextlib.closing(self._connect(path)) as connection:
                yield connection
        except sqlite3.Error as error:
            if is_damage(error):
                raise
            raise failure(error, path, "cannot be read") from error

    def _connect(self, path: str) -> sqlite3.Connection:
        try:
            return _open(path, "rw" if self.depth.repair else "ro")
        except sqlite3.OperationalError as error:
            if finds_disk_full(error, path):
                # The memory that processes share needs room in a file; whoever is alone takes its own.
                return _open(path, "rw", "PRAGMA locking_mode=EXCLUSIVE", timeout=5)
            if self.depth.repair:
                raise
            # On a file system that cannot be written SQLite reads a database only if it may take it as unchanging.
            return _open(path, "ro&immutable=1")

    def _rows(self, statement: str) -> list[tuple[Any, ...]]:
        """What a query gives; nothing where the database is damaged, which `check_records` reports, or not there."""
        if not os.path.exists(self.path("cache.db")):
            return []
        try:
            with self.database() as connection:
                return connection.execute(statement).fetchall()
        except sqlite3.Error:
            return []

    @contextlib.contextmanager
    def no_collection(self) -> Iterator[frozenset[str]]:
        """What running builds hold, while none can begin to hold more: keep it short."""
        with frozen(self.path("leases")) as pins:
            yield pins

    def quarantine(self, path: str) -> str:
        """Move something aside, so that it can be looked at; says so."""
        directory = self.path(QUARANTINE)
        name = f"{os.path.basename(path)}.{os.urandom(4).hex()}"
        os.makedirs(directory, mode=0o700, exist_ok=True)
        os.rename(path, os.path.join(directory, name))
        return f"moved to {QUARANTINE}/{name}"
