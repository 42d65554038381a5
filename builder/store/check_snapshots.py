"""Are unpacked layers what their archives say?

Compared are names, types, modes and sizes with the listing of the layer's archive; contents on request. What lies in a
directory that the archive itself lacks is not looked at: it may have gone where a link of the layers below leads.
A file too many counts as well: steps that follow would see it, and nobody who has the image from elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from builder.boot import current_boot
from builder.errors import LayerError, StoreError
from builder.filesystem.archive import TarReader, pieces
from builder.filesystem.decompress import decompressor
from builder.filesystem.erofs_mount import is_able, mount_erofs
from builder.filesystem.overlay_format import is_privileged
from builder.filesystem.snapshot_entries import DIRECTORY, EROFS, SnapshotEntries, is_snapshot
from builder.store.check_listing import Listing
from builder.store.check_session import LEFTOVER, Session
from builder.store.snapshot_directories import PRIVILEGED, own_snapshots, snapshot_names
from builder.store.store import remove_tree


def check_snapshots(session: Session) -> None:
    """Those of other kinds of processes, too, where their marks can be seen: by a privileged process."""
    session.counts["snapshots"] = 0
    own = own_snapshots(session.root).entries.directory
    for name in snapshot_names(session.root):
        if not is_privileged() and session.path(name) != own:
            continue
        _check_directory(session, session.path(name))
        if session.depth.repair:
            with suppress(OSError):  # those that are left are whole: let them be believed after a restart, too
                SnapshotEntries(session.path(name)).settle()


def _check_directory(session: Session, directory: str) -> None:
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return
    entries = SnapshotEntries(directory)
    snapshots = [name for name in names if is_snapshot(name)]
    session.counts["snapshots"] += len(snapshots)
    for number, name in enumerate(snapshots):
        session.progress("snapshots", number, len(snapshots))
        path = os.path.join(directory, name)
        try:
            before = os.stat(path)
            severity, cause = _fault(session, path)
            if cause and not os.path.samestat(before, os.stat(path)):
                continue  # it was made again
        except FileNotFoundError:
            continue  # a collection took it, perhaps while its files were looked for
        if cause:
            _report(session, directory, name, cause, severity)
    for name in names:
        if name not in ("lock", "locks") and name not in snapshots:
            session.found(
                "snapshot", os.path.join(directory, name), "a killed process left it", severity=LEFTOVER,
                repair="removed" if session.depth.repair and entries.sweep_one(name) else "",
            )  # fmt: skip


def _report(session: Session, directory: str, name: str, cause: str, severity: str) -> None:
    diff_id = f"sha256:{name[:64]}"
    repair = remedy = ""
    if session.depth.repair:
        with session.no_collection() as pins:
            if diff_id in pins:
                remedy = "a running build uses it: check again when it has ended"
            else:
                gone = os.path.join(directory, f"gone-{os.urandom(8).hex()}")
                try:
                    os.rename(os.path.join(directory, name), gone)
                except FileNotFoundError:
                    return  # a collection took it
                repair = "removed; it is unpacked again when it is needed"
        if repair:
            remove_tree(gone)
    session.found("snapshot", name, cause, severity=severity, repair=repair, remedy=remedy)


def _fault(session: Session, path: str) -> tuple[str, str]:
    """The severity and cause of what is wrong with a snapshot; the cause is '' if nothing is. Raises FileNotFoundError
    for one that went meanwhile."""
    layer, _, stack = os.path.basename(path).partition("-")
    image = os.path.join(path, EROFS)
    if not os.path.isdir(os.path.join(path, DIRECTORY)) and not os.path.isfile(image):
        os.stat(path)  # FileNotFoundError: it is gone itself
        return "damage", "it has no files"
    if _is_unsettled(path):
        return LEFTOVER, "the machine stopped before it was on the disk"
    diff_id = f"sha256:{layer}"
    forms = [record for record in session.records if record.diff_id == diff_id]
    blob = next((record.digest for record in forms if session.holds(record)), None)
    if blob is None:
        return "", ""  # there is nothing to compare with
    try:
        with open(session.layout.blob_path(blob), "rb") as file, decompressor(file, place=blob) as stream:
            # Others than privileged processes leave out devices that they cannot make, as Docker does.
            devices = os.path.basename(os.path.dirname(path)) == PRIVILEGED
            listing = Listing(session.depth.deep, devices)
            for entry in TarReader(pieces(stream)):
                listing.add(entry)
    except (LayerError, StoreError) as error:
        return "damage", f"its archive cannot be read: {error}"
    try:
        with _files(path) as files:
            return "damage", listing.compare(files) or ("" if stack else listing.surplus(files)) if files else ""
    except OSError as error:
        if not os.path.exists(image):
            raise
        return "damage", f"its image cannot be read: {error.strerror}"


@contextmanager
def _files(path: str) -> Iterator[str]:
    """The directory with a snapshot's files; '' where this process cannot mount the image that they are in. Raises
    OSError for an image that is none."""
    image = os.path.join(path, EROFS)
    if not os.path.exists(image):
        yield os.path.join(path, DIRECTORY)
    elif not is_able(path):
        yield ""
    else:
        root = mount_erofs(image)
        try:
            yield f"/proc/self/fd/{root}"
        finally:
            os.close(root)


def _is_unsettled(path: str) -> bool:
    """Whether a snapshot was never flushed to the disk and the machine was started again since."""
    try:
        with open(os.path.join(path, "boot"), encoding="ascii", errors="replace") as file:
            return file.read(64).strip() != current_boot()
    except FileNotFoundError:
        return False
