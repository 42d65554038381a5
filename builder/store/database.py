"""`cache.db`: what the store remembers in SQLite. All of it can be lost without losing an image.

Tables: `layers` (diff ID → stored blob and where it can be fetched), `steps` (cache key → layer), `recipes` (cache key
→ what it was computed from, readable; kept when the step is forgotten, so that a miss can be explained), `memos`
(derived data under a kind and a key: parsed Dockerfiles, file digests, resolved references), `unsettled` (blobs that
were not flushed to the disk, see `settle`).
Every call opens a short transaction; threads share one connection under a lock, processes SQLite's own.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from builder.errors import StoreError
from builder.filesystem.locks import exclusive
from builder.store.records import OBSERVED, Holding, LayerRecord, RecipeRecord, StepRecord

VERSION = 3

_SCHEMA = """
DROP TABLE IF EXISTS layers;
DROP TABLE IF EXISTS steps;
DROP TABLE IF EXISTS recipes;
DROP TABLE IF EXISTS memos;
DROP TABLE IF EXISTS unsettled;
CREATE TABLE IF NOT EXISTS layers (
    diff_id TEXT NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER NOT NULL,
    origin TEXT NOT NULL DEFAULT '', uncompressed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (diff_id, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS steps (
    key TEXT PRIMARY KEY, diff_id TEXT NOT NULL, lineage TEXT NOT NULL, created REAL NOT NULL,
    used REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS recipes (key TEXT PRIMARY KEY, recipe BLOB NOT NULL, content TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS memos (
    kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, used REAL NOT NULL, holds TEXT NOT NULL,
    PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unsettled (digest TEXT PRIMARY KEY, boot TEXT NOT NULL) WITHOUT ROWID;
"""


_LARGE = 4 << 20  # bytes

_ADD_LAYER = (
    "INSERT INTO layers VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (diff_id, digest) DO UPDATE SET"
    " origin = CASE WHEN excluded.origin != '' THEN excluded.origin ELSE origin END,"
    # Until somebody has read the blob, what it is was only said.
    " media_type = CASE WHEN excluded.uncompressed > 0 AND uncompressed = 0 THEN excluded.media_type"
    " ELSE media_type END,"
    " size = CASE WHEN excluded.uncompressed > 0 AND uncompressed = 0 THEN excluded.size ELSE size END,"
    " uncompressed = max(uncompressed, excluded.uncompressed)"
)
_ALL_LAYERS = "SELECT diff_id, digest, media_type, size, origin, uncompressed FROM layers"
_USED_AGAIN = 1800.0
"""Seconds after which a step's use is noted anew: a rebuild need not write. One that is answered from a note does not
come here for as long again."""


class Database:
    """The database at `path`, made when it is not there."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
            try:
                self._begin()
            except BaseException:
                self._connection.close()  # it would keep its locks as long as the error is known
                raise
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _begin(self) -> None:
        self._connection.execute("PRAGMA synchronous=NORMAL")
        if self._connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            with exclusive(f"{self._path}.lock"):  # SQLite does not wait for others while it changes the journal's mode
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._make_tables()

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

    def _failure(self, error: sqlite3.Error) -> StoreError:
        from builder.store.database_errors import failure

        return failure(error, self._path, "cannot be used")

    @contextmanager
    def _cursor(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                self._roll_back()
                raise self._failure(error) from error
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        """What was begun and not ended would fail every later call."""
        if self._connection.in_transaction:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    # --- layers

    def add_layer(self, record: LayerRecord) -> None:
        with self._cursor() as connection:
            connection.execute(_ADD_LAYER, msgspec.structs.astuple(record))

    def add_unsettled_layer(self, record: LayerRecord, boot: str) -> None:
        """Keep a layer whose blob was written in this boot and not flushed yet."""
        with self._cursor() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_ADD_LAYER, msgspec.structs.astuple(record))
            connection.execute("INSERT OR REPLACE INTO unsettled VALUES (?, ?)", (record.digest, boot))
            connection.execute("COMMIT")

    def unsettled(self) -> list[tuple[str, str]]:
        """The blobs that were not flushed to the disk, each with the boot in which it was written."""
        with self._cursor() as connection:
            return connection.execute("SELECT digest, boot FROM unsettled").fetchall()

    def settled(self, digests: Iterable[str]) -> None:
        """Note that these blobs are on the disk, or gone."""
        with self._cursor() as connection:
            connection.executemany("DELETE FROM unsettled WHERE digest = ?", [(digest,) for digest in digests])

    def layers(self, diff_id: str) -> list[LayerRecord]:
        with self._cursor() as connection:
            rows = connection.execute(f"{_ALL_LAYERS} WHERE diff_id = ?", (diff_id,)).fetchall()
        return [LayerRecord(*row) for row in rows]

    def all_layers(self) -> list[LayerRecord]:
        with self._cursor() as connection:
            rows = connection.execute(_ALL_LAYERS).fetchall()
        return [LayerRecord(*row) for row in rows]

    def forget_blobs(self, records: Iterable[LayerRecord]) -> None:
        """Forget these forms of layers, and memos whose key is such a layer."""
        with self._cursor() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "DELETE FROM layers WHERE diff_id = ? AND digest = ?",
                gone := [(record.diff_id, record.digest) for record in records],
            )
            connection.execute("CREATE TEMP TABLE gone (key TEXT PRIMARY KEY)")  # no index finds memos by their key
            connection.executemany("INSERT OR IGNORE INTO gone VALUES (?)", [(diff_id,) for diff_id, _ in gone])
            connection.execute("DELETE FROM memos WHERE key IN (SELECT key FROM gone)")
            connection.execute("DROP TABLE gone")
            connection.execute("COMMIT")

    # --- steps

    def step(self, key: str) -> StepRecord | None:
        with self._cursor() as connection:
            row = connection.execute(
                "SELECT steps.key, diff_id, recipe, lineage, created, used FROM steps JOIN recipes USING (key)"
                " WHERE steps.key = ?",
                (key,),
            ).fetchone()
            self._note_use(connection, key, row)
        return StepRecord(*row[:5]) if row else None

    def result(self, key: str) -> StepRecord | None:
        """`step` without its recipe, which may be large."""
        with self._cursor() as connection:
            row = connection.execute(
                "SELECT key, diff_id, x'', lineage, created, used FROM steps WHERE key = ?", (key,)
            ).fetchone()
            self._note_use(connection, key, row)
        return StepRecord(*row[:5]) if row else None

    def _note_use(self, connection: sqlite3.Connection, key: str, row: tuple[Any, ...] | None) -> None:
        """Note that a step was used; the last column of `row` says when it last was."""
        if row and (now := time.time()) - row[-1] > _USED_AGAIN:
            connection.execute("UPDATE steps SET used = ? WHERE key = ?", (now, key))

    def add_step(self, record: StepRecord, content: str = "") -> None:
        """Keep what a step made, and its recipe; for `content` see RecipeRecord."""
        with self._cursor() as connection:
            connection.execute("BEGIN IMMEDIATE")
            self._add_recipe(connection, RecipeRecord(record.key, record.recipe, content))
            connection.execute(
                "INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?, ?)",
                (record.key, record.diff_id, record.lineage, record.created, time.time()),
            )
            connection.execute("COMMIT")

    # --- recipes

    def recipe(self, key: str) -> RecipeRecord | None:
        """The recipe of a key, also of one whose step was forgotten or never came to a result."""
        with self._cursor() as connection:
            row = connection.execute("SELECT key, recipe, content FROM recipes WHERE key = ?", (key,)).fetchone()
        return RecipeRecord(*row) if row else None

    def add_recipe(self, record: RecipeRecord) -> None:
        """Keep the recipe of a step that has no result."""
        with self._cursor() as connection:
            connection.execute("BEGIN IMMEDIATE")
            self._add_recipe(connection, record)
            connection.execute("COMMIT")

    def _add_recipe(self, connection: sqlite3.Connection, record: RecipeRecord) -> None:
        """A large recipe is written by pieces: SQLite would make two copies of it in memory."""
        recipe = memoryview(record.recipe)
        large = len(recipe) > _LARGE
        rows = connection.execute(
            f"INSERT INTO recipes VALUES (?, {'zeroblob(?)' if large else '?'}, ?)"
            " ON CONFLICT (key) DO UPDATE SET recipe = excluded.recipe,"
            " content = CASE WHEN excluded.content != '' THEN excluded.content ELSE content END RETURNING rowid",
            (record.key, len(recipe) if large else recipe, record.content),
        ).fetchall()
        if large:
            with connection.blobopen("recipes", "recipe", rows[0][0]) as blob:
                for start in range(0, len(recipe), _LARGE):
                    blob.write(recipe[start : start + _LARGE])

    def forget_recipes(self, kept: Iterable[str]) -> None:
        """Forget the recipes that neither a step has nor `kept` names, with those that the kept ones point to."""
        with self._cursor() as connection:
            connection.execute("BEGIN IMMEDIATE")  # or a step that is added meanwhile would lose its recipe
            connection.execute("CREATE TEMP TABLE kept (key TEXT PRIMARY KEY)")
            connection.executemany("INSERT OR IGNORE INTO kept VALUES (?)", [(key,) for key in kept])
            connection.execute("INSERT OR IGNORE INTO kept SELECT key FROM steps")
            connection.execute("INSERT OR IGNORE INTO kept SELECT content FROM recipes JOIN kept USING (key)")
            connection.execute("DELETE FROM recipes WHERE key NOT IN (SELECT key FROM kept)")
            connection.execute("DROP TABLE kept")
            connection.execute("COMMIT")

    def step_recipes(self, largest: int) -> list[tuple[str, float, bytes]]:
        """The layer of each step, when it was last used, and its recipe, unless that has more than `largest` bytes."""
        with self._cursor() as connection:
            return connection.execute(
                "SELECT diff_id, used, recipe FROM steps JOIN recipes USING (key) WHERE length(recipe) <= ?", (largest,)
            ).fetchall()

    def lineages(self) -> dict[str, str]:
        """The place in a Dockerfile where each step was made, by its key."""
        with self._cursor() as connection:
            return dict(connection.execute("SELECT key, lineage FROM steps").fetchall())

    def equal_steps(self, lineage: str, diff_id: str) -> list[StepRecord]:
        """The records of one place in one Dockerfile that gave this layer, oldest first."""
        with self._cursor() as connection:
            rows = connection.execute(
                "SELECT key, diff_id, recipe, lineage, created FROM steps JOIN recipes USING (key)"
                " WHERE lineage = ? AND diff_id = ? ORDER BY created, key",
                (lineage, diff_id),
            ).fetchall()
        return [StepRecord(*row) for row in rows]

    # --- memos

    def memo(self, kind: str, key: str) -> bytes | None:
        with self._cursor() as connection:
            row = connection.execute("SELECT value, used FROM memos WHERE kind = ? AND key = ?", (kind, key)).fetchone()
            if row and (now := time.time()) - row[1] > _USED_AGAIN:
                connection.execute("UPDATE memos SET used = ? WHERE kind = ? AND key = ?", (now, kind, key))
        return row[0] if row else None

    def memos(self, kind: str) -> dict[str, bytes]:
        """All memos of a kind by key, without noting that they were used."""
        with self._cursor() as connection:
            return dict(connection.execute("SELECT key, value FROM memos WHERE kind = ?", (kind,)).fetchall())

    def add_memo(self, kind: str, key: str, value: bytes, holds: str = "") -> None:
        """`holds` is the digest of the blob, or the diff ID of the layer, without which the memo is worth nothing, and
        which it keeps; one that only goes with a layer has its diff ID as the key."""
        with self._cursor() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO memos VALUES (?, ?, ?, ?, ?)", (kind, key, value, time.time(), holds)
            )

    def forget_unused_memos(self, before: float) -> None:
        """Forget the memos that hold nothing and were last used `before`, in seconds since the epoch: what is derived
        from what is here. Those that hold something go as steps do, what was OBSERVED stays."""
        with self._cursor() as connection:
            others = ", ".join("?" * len(OBSERVED))
            connection.execute(
                f"DELETE FROM memos WHERE holds = '' AND used < ? AND kind NOT IN ({others})", (before, *OBSERVED)
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
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("DELETE FROM steps WHERE key = ?", steps)
            connection.executemany("DELETE FROM memos WHERE kind = ? AND key = ?", memos)
            connection.execute("COMMIT")

    def clear(self) -> None:
        """Forget every step and memo (not the layers, which describe blobs)."""
        with self._cursor() as connection:
            connection.executescript("DELETE FROM steps; DELETE FROM memos")
