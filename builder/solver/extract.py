"""ADD of a local archive: its entries are staged below the destination, as Docker's `archive.Untar` unpacks them.

The destination is the root that links and hard links in the archive cannot leave. File contents are spooled to one
temporary file, so that memory stays flat.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from builder.config import ArchiveLimits
from builder.errors import LayerError, StepFailed
from builder.filesystem import kinds
from builder.filesystem.archive import ArchiveEntry, TarReader, read_archive
from builder.filesystem.decompress import decompressor
from builder.filesystem.resolve import resolve
from builder.filesystem.tree import FileInfo, FileTree
from builder.plan.paths import clean
from builder.solver.place import Ownership, make_directories
from builder.solver.staging import PieceContent, Staged, Staging

_BLOCK = 512


def is_archive(tree: FileTree, path: str) -> bool:
    """Whether a file is a tar archive, compressed or not, with at least one entry. Only its beginning counts, as in
    BuildKit: one that is cut short later is an archive, and an error."""
    with os.fdopen(tree.open(path), "rb") as file:
        try:
            stream = decompressor(file)
            return next(iter(TarReader(iter(lambda: stream.read(_BLOCK), b""))), None) is not None
        except (LayerError, OSError, EOFError):
            return False


def extract(
    staging: Staging,
    tree: FileTree,
    path: str,
    destination: str,
    ownership: Ownership,
    spool_path: str,
    limits: ArchiveLimits | None = None,
) -> None:
    """Stage what the archive holds. `--chown` reaches every entry, `--chmod` none. Raises StepFailed, LayerError."""
    limits = limits or ArchiveLimits()
    target = resolve(staging, clean(destination))
    made = FileInfo(kinds.DIRECTORY, 0o755, *(ownership.owner or (0, 0)), 0, ownership.now_ns)
    make_directories(staging, target, made)
    root = _Below(staging, target)
    with os.fdopen(tree.open(path), "rb") as file, open(spool_path, "xb") as spool:
        stream = decompressor(file, limits=limits, place=f"/{path}")
        try:
            for entry in read_archive(stream, max_entries=limits.entries or None):
                _Extraction(root, ownership, spool, f"/{path}").put(entry)
        except LayerError as error:
            if error.place != f"/{path}":  # it knows the entry alone, if any
                error.place = f"/{path}:{error.place}" if error.place else f"/{path}"
            raise


class _Below:
    """A staging seen from one of its directories, which counts as the root."""

    def __init__(self, staging: Staging, base: str) -> None:
        self.staging = staging
        self.base = base

    def full(self, path: str) -> str:
        return f"{self.base}/{path}" if self.base and path else self.base or path

    def lstat(self, path: str) -> FileInfo | None:
        return self.staging.lstat(self.full(path))

    def scan(self, path: str) -> list[tuple[str, FileInfo]]:
        raise NotADirectoryError(path)

    def open(self, path: str) -> int:
        raise FileNotFoundError(path)

    def xattrs(self, path: str) -> dict[str, bytes]:
        return {}


class _Extraction:
    """Puts one entry."""

    def __init__(self, root: _Below, ownership: Ownership, spool: BinaryIO, archive: str) -> None:
        self._root = root
        self._ownership = ownership
        self._spool = spool
        self._archive = archive

    def put(self, entry: ArchiveEntry) -> None:
        if not entry.path:
            return
        parent, _, name = entry.path.rpartition("/")
        if parent and self._root.lstat(parent) is None:
            made = FileInfo(kinds.DIRECTORY, 0o755, 0, 0, 0, self._ownership.now_ns)
            make_directories(self._root.staging, self._root.full(resolve(self._root, parent)), made)
        directory = resolve(self._root, parent)
        found = self._root.lstat(directory)
        if found is None or found.kind != kinds.DIRECTORY:
            raise StepFailed(f"cannot extract {entry.path!r}: /{parent} is not a directory", place=self._archive)
        path = f"{directory}/{name}" if directory else name
        self._put_at(path, entry)

    def _put_at(self, path: str, entry: ArchiveEntry) -> None:
        staging, full = self._root.staging, self._root.full(path)
        if entry.hardlink is not None:
            self._link(full, entry)
            return
        owner = self._ownership.owner
        info = entry.info
        if owner is not None:
            info = FileInfo(info.kind, info.mode, owner[0], owner[1], info.size, info.mtime_ns, info.link, info.device)
        content = None
        if info.kind == kinds.FILE:
            offset = self._spool.tell()
            for chunk in entry.content.chunks():
                self._spool.write(chunk)
            content = PieceContent(self._spool.name, offset, f"{self._archive}:{entry.path}")
        xattrs = {name: value for name, value in entry.xattrs.items() if not name.startswith("user.")}
        staging.put(Staged(full, info, content, xattrs))

    def _link(self, full: str, entry: ArchiveEntry) -> None:
        """A hard link: to an entry of this archive, or to a file that was there before. Its own header changes the
        owner and the mode of both."""
        assert entry.hardlink is not None
        target = self._root.full(resolve(self._root, entry.hardlink, follow_last=False))
        found = self._root.staging.lstat(target)
        if found is None or found.kind == kinds.DIRECTORY:
            raise StepFailed(
                f"cannot extract {entry.path!r}: its hard link's target {entry.hardlink!r} is not in the archive",
                place=self._archive,
            )
        staged = self._root.staging.staged(target)
        if staged is None:
            raise StepFailed(
                f"cannot extract {entry.path!r}: it is a hard link to /{target}, which an earlier layer holds",
                place=self._archive,
            )
        origin = staged.hardlink or target
        first = self._root.staging.staged(origin)
        assert first is not None
        uid, gid = self._ownership.owner or (entry.info.uid, entry.info.gid)
        info = first.info
        changed = FileInfo(info.kind, entry.info.mode, uid, gid, info.size, entry.info.mtime_ns, info.link, info.device)
        self._root.staging.restate(origin, changed)
        if full != origin:
            self._root.staging.put(Staged(full, changed, hardlink=origin))
