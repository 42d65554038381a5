"""A cache database that cannot be used says why, and what to do."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from builder.errors import DiskFull, StoreError
from builder.store.database import Database
from builder.store.database_errors import failure


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "cache.db")


@pytest.mark.parametrize("damage", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_database_says_what_to_do(path: str, damage: bytes) -> None:
    Path(path).write_bytes(damage)
    with pytest.raises(StoreError, match="the cache database cannot be used") as caught:
        Database(path).memo("kind", "key")
    assert caught.value.place == path
    assert "remove it" in (caught.value.remedy or "")


def _fail(path: str) -> StoreError:
    with pytest.raises(StoreError) as caught:
        Database(path).memo("kind", "key")
    return caught.value


def test_a_database_that_others_hold(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Database(path).close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda place, **given: connect(place, **{**given, "timeout": 0}))
    error = _fail(path)
    holder.close()
    assert error.cause == "the cache database cannot be used: database is locked (SQLITE_BUSY)"
    assert "try again" in (error.remedy or "")
    assert "remove" not in (error.remedy or "")


def test_nobody_is_told_to_remove_a_database_that_cannot_be_opened(path: str) -> None:
    Database(path).close()
    Path(f"{path}-wal").mkdir()
    error = _fail(path)
    assert error.cause == "the cache database cannot be used: unable to open database file (SQLITE_CANTOPEN)"
    assert error.remedy == "see that it and its directory can be read and written"


@pytest.mark.parametrize(
    ("name", "free", "full"),
    [
        ("SQLITE_FULL", 1 << 30, True),
        ("SQLITE_IOERR_SHMSIZE", 0, True),
        ("SQLITE_IOERR_WRITE", 0, True),
        ("SQLITE_IOERR_WRITE", 1 << 30, False),
        ("SQLITE_IOERR_READ", 0, False),
        ("SQLITE_CANTOPEN", 0, True),
        ("SQLITE_CORRUPT", 0, False),
    ],
)
def test_a_full_disk_is_told_apart(
    path: str, monkeypatch: pytest.MonkeyPatch, name: str, free: int, full: bool
) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode, error.sqlite_errorname = getattr(sqlite3, name), name
    monkeypatch.setattr("builder.store.room.free_space", lambda directory: free)
    found = failure(error, path, "cannot be used")
    assert isinstance(found, DiskFull) is full
    assert found.place == path
    assert found.remedy
