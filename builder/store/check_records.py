"""Is the cache database whole, and does every record in it hold something that is here or can be fetched?"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence

import msgspec

from builder.oci.spec import Descriptor
from builder.store.check_layers import content_fault
from builder.store.check_session import DAMAGE, LEFTOVER, Session
from builder.store.database import VERSION
from builder.store.layers import is_offer
from builder.store.records import LayerRecord

_TABLES = ("layers", "steps", "recipes", "memos")


def check_records(session: Session) -> None:
    path = session.path("cache.db")
    if not os.path.exists(path):
        return
    try:
        with session.database() as connection:
            faults = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
            if faults != ["ok"]:
                _corrupted(session, path, "; ".join(faults))
                return
            if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                return  # of another version: the next build begins anew
            session.counts["records"] = sum(
                connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in _TABLES
            )
            good = _check_layers(session, connection)
            _check_holdings(session, connection, good)
            _check_recipes(session, connection)
    except sqlite3.Error as error:
        _corrupted(session, path, str(error))


def _corrupted(session: Session, path: str, cause: str) -> None:
    """A database that is not one: the cache is lost, no image is."""
    repair = ""
    if session.depth.repair:
        repair = session.quarantine(path)
        for beside in (f"{path}-wal", f"{path}-shm"):
            if os.path.exists(beside):
                session.quarantine(beside)
        repair += "; the next build begins a new one"
    session.found("record", path, f"the cache database is damaged: {cause}", repair=repair)


def _check_layers(session: Session, connection: sqlite3.Connection) -> list[LayerRecord]:
    """Records of blobs that are gone are what a killed collection leaves; of others what they state is compared.
    Returns those that are good."""
    good: list[LayerRecord] = []
    for record in session.records:
        cause, severity = _record_fault(session, record)
        if not cause:
            good.append(_with_true_size(session, connection, record))
            continue
        repair = ""
        if session.depth.repair:
            connection.execute("DELETE FROM layers WHERE (diff_id, digest) = (?, ?)", (record.diff_id, record.digest))
            repair = "forgotten"
        session.found("record", f"layer {record.diff_id}", cause, severity=severity, repair=repair)
    return good


def _record_fault(session: Session, record: LayerRecord) -> tuple[str, str]:
    """What is wrong with a layer's record, '' if nothing is, and how bad that is."""
    gone = "" if record.origin else "its blob is not here and cannot be fetched"
    if not session.is_here(record.digest):
        return gone, LEFTOVER
    try:
        if os.stat(session.layout.blob_path(record.digest)).st_size != record.size:
            return "its blob has another size", DAMAGE
        fault = content_fault(session, Descriptor(record.media_type, record.digest, record.size), record.diff_id)
    except FileNotFoundError:  # a collection took it just now
        return gone, LEFTOVER
    # What a build cache claims is compared before it is used, so a wrong claim does no harm.
    return f"its blob {fault}" if fault else "", LEFTOVER if is_offer(record) else DAMAGE


def _with_true_size(session: Session, connection: sqlite3.Connection, record: LayerRecord) -> LayerRecord:
    """A good record, of which the size of the uncompressed layer is mended if it is known and wrong."""
    found = session.contents.get(record.digest)
    if found is None or record.uncompressed in (0, found.size):
        return record
    repair = ""
    if session.depth.repair:
        connection.execute(
            "UPDATE layers SET uncompressed = ? WHERE (diff_id, digest) = (?, ?)",
            (found.size, record.diff_id, record.digest),
        )
        repair = "noted anew"
    cause = f"its uncompressed size is {found.size} bytes, not {record.uncompressed}"
    session.found("record", f"layer {record.diff_id}", cause, repair=repair)
    return record


def _check_holdings(session: Session, connection: sqlite3.Connection, good: Sequence[LayerRecord]) -> None:
    """Steps and memos whose layer or blob is neither here nor to be had. They do no harm, the step runs again; a power
    failure leaves some."""
    rows = connection.execute(
        "SELECT '', key, diff_id FROM steps UNION ALL SELECT kind, key, holds FROM memos WHERE holds != ''"
    ).fetchall()
    known: dict[str, bool] = {}
    layers = {record.diff_id for record in good} | _added_meanwhile(session, connection)

    def is_held(digest: str) -> bool:
        if digest not in known:
            known[digest] = digest in layers or session.is_here(digest) or session.fetchable(digest) is not None
        return known[digest]

    lost = [(kind, key, holds) for kind, key, holds in rows if not is_held(holds)]
    if session.depth.repair:
        connection.executemany("DELETE FROM steps WHERE key = ?", [(key,) for kind, key, _ in lost if not kind])
        connection.executemany(
            "DELETE FROM memos WHERE kind = ? AND key = ?", [(kind, key) for kind, key, _ in lost if kind]
        )
    for kind, key, holds in lost:
        session.found(
            "record",
            f"{kind or 'step'} {key[:12] if not kind else key}",
            f"what it holds is lost: {holds}",
            severity=LEFTOVER,
            repair="forgotten" if session.depth.repair else "",
        )


def _added_meanwhile(session: Session, connection: sqlite3.Connection) -> set[str]:
    """The layers that builds have kept in some form since the records were read: before the steps that made them."""
    seen = {(record.diff_id, record.digest) for record in session.records}
    rows = connection.execute("SELECT diff_id, digest FROM layers").fetchall()
    return {diff_id for diff_id, digest in rows if (diff_id, digest) not in seen}


def _check_recipes(session: Session, connection: sqlite3.Connection) -> None:
    """Recipes are JSON; a step without one can be used, but not explained."""
    wrong = []
    for key, recipe in connection.execute("SELECT key, recipe FROM recipes"):
        try:
            msgspec.json.decode(recipe)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            wrong.append(key)
    bare = [row[0] for row in connection.execute("SELECT key FROM steps WHERE key NOT IN (SELECT key FROM recipes)")]
    if session.depth.repair:
        for table in ("steps", "recipes"):
            connection.executemany(f"DELETE FROM {table} WHERE key = ?", [(key,) for key in (*wrong, *bare)])
    repair = "forgotten" if session.depth.repair else ""
    for key in wrong:
        session.found("record", f"recipe {key[:12]}", "it cannot be read", repair=repair)
    for key in bare:
        session.found("record", f"step {key[:12]}", "it has no recipe", repair=repair)
