"""What SQLite's errors say of a database: it is damaged, the disk is full, another process is at work with it."""

from __future__ import annotations

import os
import sqlite3

from builder.errors import DiskFull, StoreError
from builder.store.room import is_full


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that a database is not as it was written: pages or tables are not what they should be, or
    a text is none. Others say that the disk is full, cannot be read or written, or that somebody holds the database."""
    code: int | None = getattr(error, "sqlite_errorcode", None)  # None: Python's own, about what it was given
    return code is None or code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def failure(error: sqlite3.Error, path: str, what: str) -> StoreError:
    """The error that says that `what` (`cannot be used`) is the matter with the database at `path`."""
    if finds_disk_full(error, path):
        return DiskFull(path)
    code: int = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if is_damage(error):
        remedy = "it only holds a cache: 'builder fsck' moves it away; or remove it and build again"
    elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        remedy = "another process is at work with it: try again when that has ended"
    elif code == sqlite3.SQLITE_IOERR:
        remedy = "look for what the system's log says of this disk"
    else:
        remedy = "see that it and its directory can be read and written"
    name = getattr(error, "sqlite_errorname", "")
    return StoreError(f"the cache database {what}: {error}{f' ({name})' if name else ''}", place=path, remedy=remedy)


def finds_disk_full(error: sqlite3.Error, path: str) -> bool:
    """Whether the database at `path` cannot be used because the disk is full. SQLite says so only of what it appends;
    the memory that processes share is an input/output error."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF == sqlite3.SQLITE_IOERR:
        reading = (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ)
        return code not in reading and is_full(os.path.dirname(path))
    if code & 0xFF == sqlite3.SQLITE_CANTOPEN:
        return is_full(os.path.dirname(path))
    return code & 0xFF == sqlite3.SQLITE_FULL
