"""Are unpacked layers what their archives say?

Compared are names, types, modes and sizes with the listing of the layer's archive; contents on request. What lies in a
directory that the archive itself lacks is not looked at: it may have gone where a link of the layers below leads.
A file too many counts as well: steps that follow would see it, and nobody who has the image from elsewhere.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from builder.boot import current_boot
from builder.errors import LayerError, StoreError
from builder.filesystem import kinds
from builder.filesystem.archive import ArchiveEntry, TarReader, pieces
from builder.filesystem.decompress import decompressor
from builder.filesystem.erofs_mount import is_able, mount_erofs
from builder.filesystem.overlay_format import OPAQUE, attributes, file_info, is_privileged
from builder.filesystem.resolve import resolve
from builder.filesystem.snapshot_entries import DIRECTORY, EROFS, SnapshotEntries, is_snapshot
from builder.filesystem.tree import FileInfo
from builder.store.check_session import LEFTOVER, Session
from builder.store.snapshot_directories import PRIVILEGED, own_snapshots, snapshot_names
from builder.store.store import remove_tree

_WHITEOUT, _OPAQUE, _META = ".wh.", ".wh..wh..opq", ".wh..wh."


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
            listing = _Listing(session.depth.deep, devices)
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


class _Listing:
    """What a layer's archive makes of an empty directory: files by path, each with the digest of its content if `deep`,
    and `devices` if these must be there.

    `indirect` are paths that lead through directories which the archive itself does not have.
    """

    def __init__(self, deep: bool, devices: bool) -> None:
        self.deep = deep
        self.devices = devices
        self.files: dict[str, FileInfo] = {}
        self.digests: dict[str, bytes] = {}
        self.names: dict[str, set[str]] = {}  # of a file that has several
        self.opaque: set[str] = set()
        self.indirect: set[str] = set()
        self.implied: set[str] = set()  # the directories that these lead through

    def lstat(self, path: str) -> FileInfo | None:
        return self.files.get(path) if path else FileInfo(kinds.DIRECTORY, 0o755)

    def add(self, entry: ArchiveEntry) -> None:
        directory, _, name = entry.path.rpartition("/")
        if not name:
            return  # the root's metadata is no part of a listing
        directory = resolve(self, directory)
        path = f"{directory}/{name}" if directory else name
        if name.startswith(_WHITEOUT):
            self._hide(directory, name)
            return
        if directory and directory not in self.files:
            self._add_indirect(path)
        info = entry.info
        digest = b""
        if info.kind == kinds.HARDLINK:
            target = resolve(self, entry.hardlink or "", follow_last=False)
            original = self.files.get(target)
            if original is not None and original.kind == kinds.DIRECTORY:
                return  # itself: all others cannot be unpacked
            if original is None:
                self._add_indirect(path)
                return
            digest = self.digests.get(target, b"")
            info = FileInfo(original.kind, info.mode, size=original.size, link=original.link, device=original.device)
            if original.kind == kinds.SYMLINK:
                info = original
            names = self.names.setdefault(target, {target})
            self._unlink(path)
            names.add(path)
            for name in names:  # the mode of the last entry counts for all names of a file
                self.names[name] = names
                self.files[name] = info
        else:
            self._unlink(path)
            if info.kind == kinds.FILE and self.deep:
                hasher = hashlib.sha256()
                for piece in entry.content.chunks():
                    hasher.update(piece)
                digest = hasher.digest()
        before = self.files.get(path)
        was_directory = path in self.implied or (before is not None and before.kind == kinds.DIRECTORY)
        if was_directory and info.kind != kinds.DIRECTORY:
            inside = f"{path}/"
            for other in [other for other in self.files if other.startswith(inside)]:
                del self.files[other]
                self.digests.pop(other, None)
                self._unlink(other)
            self.opaque = {other for other in self.opaque if other != path and not other.startswith(inside)}
            self.indirect = {other for other in self.indirect if not other.startswith(inside)}
        self.files[path] = info
        self.digests.pop(path, None)
        if digest:
            self.digests[path] = digest

    def _add_indirect(self, path: str) -> None:
        self.indirect.add(path)
        self.implied.update(_parents(path))

    def _unlink(self, path: str) -> None:
        """A path is no name any more of the file that had it."""
        self.names.pop(path, set()).discard(path)

    def _hide(self, directory: str, name: str) -> None:
        if name == _OPAQUE:
            self.opaque.add(directory)
            if directory and directory not in self.files:
                self._add_indirect(f"{directory}/{name}")
            return
        if name.startswith(_META):
            return
        hidden = name[len(_WHITEOUT) :]
        path = f"{directory}/{hidden}" if directory else hidden
        before = self.files.get(path)
        if before is None:
            self.files[path] = FileInfo(kinds.WHITEOUT, 0)
            if directory and directory not in self.files:
                self._add_indirect(path)
        elif before.kind == kinds.DIRECTORY:
            self.opaque.add(path)

    def compare(self, files: str) -> str:
        """How a directory differs from the listing, '' if all is there; what else is there does not count."""
        for path, wanted in self.files.items():
            if path in self.indirect:
                continue
            place = os.path.join(files, path)
            try:
                status = os.lstat(place)
            except (FileNotFoundError, NotADirectoryError):
                if wanted.kind in (kinds.CHARACTER, kinds.BLOCK) and not self.devices:
                    continue
                return f"{path} is missing"
            link = os.readlink(place) if wanted.kind == kinds.SYMLINK and os.path.islink(place) else ""
            fault = _difference(wanted, file_info(status, link))
            if fault:
                return f"{path}: {fault}"
            if path in self.digests and _digest(place) != self.digests[path]:
                return f"{path}: its content is another"
        for path in self.opaque:
            place = os.path.join(files, path)
            if os.path.isdir(place) and not os.path.islink(place) and not _is_marked(place):
                return f"{path or '/'} does not hide what is below it"
        return ""

    def surplus(self, files: str) -> str:
        """What a directory holds beyond the listing, '' if it is nothing."""
        parents = {parent for path in self.indirect for parent in _parents(path)}
        waiting = [""]
        while waiting:
            directory = waiting.pop()
            with os.scandir(os.path.join(files, directory)) as entries:
                for entry in entries:
                    path = f"{directory}/{entry.name}" if directory else entry.name
                    if path in parents or path in self.indirect:
                        continue  # what the archive does not have itself
                    if path not in self.files:
                        return f"{path} is not in its archive"
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
        return ""


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def _difference(wanted: FileInfo, found: FileInfo) -> str:
    if wanted.kind is not found.kind:
        return f"it is a {kinds.word(found.kind)}, not a {kinds.word(wanted.kind)}"
    if wanted.kind == kinds.WHITEOUT:
        return ""
    if wanted.kind == kinds.SYMLINK:
        return "" if wanted.link == found.link else f"it leads to {found.link!r}, not to {wanted.link!r}"
    if wanted.mode != found.mode:
        return f"its mode is {found.mode:o}, not {wanted.mode:o}"
    if wanted.kind == kinds.FILE and wanted.size != found.size:
        return f"it has {found.size} bytes, not {wanted.size}"
    return "" if wanted.device == found.device else "it is another device"


def _is_marked(directory: str) -> bool:
    """Whether a directory is opaque to the kind of process that unpacked it."""
    return any(name in OPAQUE and os.getxattr(directory, name) == b"y" for name in attributes(directory))


def _digest(path: str) -> bytes:
    """Of a file; whatever may have replaced it is not waited for."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
