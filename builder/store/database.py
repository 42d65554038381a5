"""`cache.db`: what the store remembers in SQLite. All of it can be lost without losing an image.

Tables: `layers` (diff ID → stored blob and where it can be fetched), `steps` (cache key → layer, with the readable
recipe), `memos` (derived data under a kind and a key: parsed Dockerfiles, file digests, resolved references).
Every call opens a short transaction; threads share one connection under a lock, processes SQLite's own.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import msgspec

from builder.errors import StoreError
from builder.store.locks import exclusive

VERSION = 2

_SCHEMA = """
DROP TABLE IF EXISTS layers;
DROP TABLE IF EXISTS steps;
DROP TABLE IF EXISTS memos;
CREATE TABLE IF NOT EXISTS layers (
    diff_id TEXT NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER NOT NULL,
    origin TEXT NOT NULL DEFAULT '', uncompressed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (diff_id, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS steps (
    key TEXT PRIMARY KEY, diff_id TEXT NOT NULL, recipe BLOB NOT NULL, lineage TEXT NOT NULL, created REAL NOT NULL,
    used REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS steps_by_lineage ON steps (lineage, created);
CREATE TABLE IF NOT EXISTS memos (
    kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, used REAL NOT NULL, holds TEXT NOT NULL,
    PRIMARY KEY (kind, key)) WITHOUT ROWID;
"""


_ALL_LAYERS = "SELECT diff_id, digest, media_type, size, origin, uncompressed FROM layers"
_USED_AGAIN = 3600.0  # seconds after which a step's use is noted anew: a rebuild need not write


class LayerRecord(msgspec.Struct, frozen=True):
    """A stored form of a layer. `origin` is a reference it can be fetched from, '' if it was made here; `uncompressed`
    the size of the tar stream in bytes, 0 while it is unknown."""

    diff_id: str
    digest: str
    media_type: str
    size: int
    origin: str = ""
    uncompressed: int = 0


class StepRecord(msgspec.Struct, frozen=True):
    """What a step made: the diff ID of its layer, the recipe of its key as JSON, when (seconds since the epoch)."""

    key: str
    diff_id: str
    recipe: bytes
    lineage: str
    created: float


class Holding(msgspec.Struct, frozen=True):
    """A step (`kind` is '') or memo and what it keeps: a diff ID or a blob's digest. `used` is when it last was, in
    seconds since the epoch, to within an hour."""

    kind: str
    key: str
    holds: str
    used: float


class Database:
    """The database at `path`, made when it is not there."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA synchronous=NORMAL")
            if self._connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                with exclusive(f"{path}.lock"):  # SQLite does not wait for others while it changes the journal's mode
                    self._connection.execute("PRAGMA journal_mode=WAL")
                    self._make_tables()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _make_tables(self) -> None:
        """Begin anew, unless another process did meanwhile; the tables of another version are thrown away."""
        self._connection.execute("BEGIN IMMEDIATE")
        if self._connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            for statement in _SCHEMA.split(";"):
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version={VERSION}")
        self._connection.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()

    def _failed(self, error: sqlite3.Error) -> StoreError:
        return StoreError(
            f"the cache database cannot be used: {error}",
            place=self._path,
            remedy="it only holds a cache: remove it and build again",
        )

    @contextmanager
    def _cursor(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise self._failed(error) from error

    # --- layers

    def add_layer(self, record: LayerRecord) -> None:
        with self._cursor() as connection:
            connection.execute(
                "INSERT INTO layers VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (diff_id, digest) DO UPDATE SET"
                " origin = CASE WHEN excluded.origin != '' THEN excluded.origin ELSE origin END,"
                " uncompressed = max(uncompressed, excluded.uncompressed)",
                msgspec.structs.astuple(record),
            )

    def layers(self, diff_id: str) -> list[LayerRecord]:
        with self._cursor() as connection:
            rows = connection.execute(f"{_ALL_LAYERS} WHERE diff_id = ?", (diff_id,)).fetchall()
        return [LayerRecord(*row) for row in rows]

    def all_layers(self) -> list[LayerRecord]:
        with self._cursor() as connection:
            rows = connection.execute(_ALL_LAYERS).fetchall()
        return [LayerRecord(*row) for row in rows]

    def forget_blobs(self, records: Iterable[LayerRecord]) -> None:
        """Forget these forms of layers."""
        with self._cursor() as connection:
            connection.executemany(
                "DELETE FROM layers WHERE diff_id = ? AND digest = ?",
                [(record.diff_id, record.digest) for record in records],
            )

    # --- steps

    def step(self, key: str) -> StepRecord | None:
        with self._cursor() as connection:
            row = connection.execute(
                "SELECT key, diff_id, recipe, lineage, created, used FROM steps WHERE key = ?", (key,)
            ).fetchone()
            if row and (now := time.time()) - row[5] > _USED_AGAIN:
                connection.execute("UPDATE steps SET used = ? WHERE key = ?", (now, key))
        return StepRecord(*row[:5]) if row else None

    def add_step(self, record: StepRecord) -> None:
        with self._cursor() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?, ?, ?)",
                (record.key, record.diff_id, record.recipe, record.lineage, record.created, time.time()),
            )

    def latest_step(self, lineage: str) -> StepRecord | None:
        """The newest record of the same place in the same Dockerfile, to compare a miss with."""
        with self._cursor() as connection:
            row = connection.execute(
                "SELECT key, diff_id, recipe, lineage, created FROM steps WHERE lineage = ?"
                " ORDER BY created DESC LIMIT 1",
                (lineage,),
            ).fetchone()
        return StepRecord(*row) if row else None

    # --- memos

    def memo(self, kind: str, key: str) -> bytes | None:
        with self._cursor() as connection:
            row = connection.execute("SELECT value, used FROM memos WHERE kind = ? AND key = ?", (kind, key)).fetchone()
            if row and (now := time.time()) - row[1] > _USED_AGAIN:
                connection.execute("UPDATE memos SET used = ? WHERE kind = ? AND key = ?", (now, kind, key))
        return row[0] if row else None

    def add_memo(self, kind: str, key: str, value: bytes, holds: str = "") -> None:
        """`holds` is the digest of the blob, or the diff ID of the layer, without which the memo is worth nothing."""
        with self._cursor() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO memos VALUES (?, ?, ?, ?, ?)", (kind, key, value, time.time(), holds)
            )

    # --- what is kept

    def holdings(self) -> list[Holding]:
        """The steps, and the memos that hold something."""
        with self._cursor() as connection:
            rows = connection.execute(
                "SELECT '', key, diff_id, used FROM steps UNION ALL"
                " SELECT kind, key, holds, used FROM memos WHERE holds != ''"
            ).fetchall()
        return [Holding(*row) for row in rows]

    def forget(self, holdings: Iterable[Holding]) -> None:
        """Forget steps and memos."""
        steps, memos = [], []
        for holding in holdings:
            if holding.kind:
                memos.append((holding.kind, holding.key))
            else:
                steps.append((holding.key,))
        with self._cursor() as connection:
            connection.executemany("DELETE FROM steps WHERE key = ?", steps)
            connection.executemany("DELETE FROM memos WHERE kind = ? AND key = ?", memos)

    def clear(self) -> None:
        """Forget every step and memo (not the layers, which describe blobs)."""
        with self._cursor() as connection:
            connection.executescript("DELETE FROM steps; DELETE FROM memos")
