"""`cache.db`: what the store remembers in SQLite. All of it can be lost without losing an image.

Tables: `layers` (diff ID → stored blob and where it can be fetched), `steps` (cache key → layer, with the readable
recipe), `memos` (derived data under a kind and a key: parsed Dockerfiles, file digests, resolved references).
Every call opens a short transaction; threads share one connection under a lock, processes SQLite's own.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from builder.errors import StoreError

VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS layers (
    diff_id TEXT NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER NOT NULL,
    origin TEXT NOT NULL DEFAULT '', PRIMARY KEY (diff_id, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS steps (
    key TEXT PRIMARY KEY, diff_id TEXT NOT NULL, recipe BLOB NOT NULL, lineage TEXT NOT NULL, created REAL NOT NULL,
    used REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS steps_by_lineage ON steps (lineage, created);
CREATE TABLE IF NOT EXISTS memos (
    kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, used REAL NOT NULL,
    PRIMARY KEY (kind, key)) WITHOUT ROWID;
"""


class LayerRecord(msgspec.Struct, frozen=True):
    """A stored form of a layer. `origin` is a reference it can be fetched from, '' if it was made here."""

    diff_id: str
    digest: str
    media_type: str
    size: int
    origin: str = ""


class StepRecord(msgspec.Struct, frozen=True):
    """What a step made: the diff ID of its layer, the recipe of its key as JSON, when (seconds since the epoch)."""

    key: str
    diff_id: str
    recipe: bytes
    lineage: str
    created: float


class Database:
    """The database at `path`, made when it is not there."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            new = not os.path.exists(path)
            self._connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA synchronous=NORMAL")
            if new or self._connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.executescript(_SCHEMA)
                self._connection.execute(f"PRAGMA user_version={VERSION}")
        except sqlite3.Error as error:
            raise self._failed(error) from error

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
                "INSERT INTO layers VALUES (?, ?, ?, ?, ?) ON CONFLICT (diff_id, digest) DO UPDATE SET"
                " origin = CASE WHEN excluded.origin != '' THEN excluded.origin ELSE origin END",
                (record.diff_id, record.digest, record.media_type, record.size, record.origin),
            )

    def layers(self, diff_id: str) -> list[LayerRecord]:
        with self._cursor() as connection:
            rows = connection.execute(
                "SELECT diff_id, digest, media_type, size, origin FROM layers WHERE diff_id = ?", (diff_id,)
            ).fetchall()
        return [LayerRecord(*row) for row in rows]

    def forget_layer(self, diff_id: str) -> None:
        with self._cursor() as connection:
            connection.execute("DELETE FROM layers WHERE diff_id = ?", (diff_id,))

    # --- steps

    def step(self, key: str) -> StepRecord | None:
        with self._cursor() as connection:
            row = connection.execute(
                "SELECT key, diff_id, recipe, lineage, created FROM steps WHERE key = ?", (key,)
            ).fetchone()
        return StepRecord(*row) if row else None

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
            row = connection.execute("SELECT value FROM memos WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        return row[0] if row else None

    def add_memo(self, kind: str, key: str, value: bytes) -> None:
        with self._cursor() as connection:
            connection.execute("INSERT OR REPLACE INTO memos VALUES (?, ?, ?, ?)", (kind, key, value, time.time()))

    def clear(self) -> None:
        """Forget every step and memo (not the layers, which describe blobs)."""
        with self._cursor() as connection:
            connection.executescript("DELETE FROM steps; DELETE FROM memos")
