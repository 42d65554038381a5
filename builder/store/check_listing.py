"""What unpacking a layer's archive gives, told from the archive alone, and how a directory differs from that."""

from __future__ import annotations

import hashlib
import os

from builder.filesystem import kinds
from builder.filesystem.archive import ArchiveEntry
from builder.filesystem.overlay_format import OPAQUE, attributes, file_info
from builder.filesystem.resolve import resolve
from builder.filesystem.tar import META_PREFIX, OPAQUE_MARKER, WHITEOUT_PREFIX
from builder.filesystem.tree import FileInfo


class Listing:
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
        if name.startswith(WHITEOUT_PREFIX):
            self._hide(directory, name)
            return
        if directory and directory not in self.files:
            self._add_indirect(path)
        if entry.info.kind == kinds.HARDLINK:
            self._add_link(path, entry)
        else:
            self._unlink(path)
            self._put(path, entry.info, self._digest(entry))

    def _digest(self, entry: ArchiveEntry) -> bytes:
        """The digest of an entry's content; b"" where contents are not compared."""
        if entry.info.kind != kinds.FILE or not self.deep:
            return b""
        hasher = hashlib.sha256()
        for piece in entry.content.chunks():
            hasher.update(piece)
        return hasher.digest()

    def _add_link(self, path: str, entry: ArchiveEntry) -> None:
        """A hard link is one more name of a file; its own header counts for all of them."""
        target = resolve(self, entry.hardlink or "", follow_last=False)
        original = self.files.get(target)
        if original is None:
            self._add_indirect(path)
            return
        if original.kind == kinds.DIRECTORY:
            return  # itself: all others cannot be unpacked
        info = original
        if original.kind != kinds.SYMLINK:
            mode = entry.info.mode
            info = FileInfo(original.kind, mode, size=original.size, link=original.link, device=original.device)
        names = self.names.setdefault(target, {target})
        self._unlink(path)
        names.add(path)
        for name in names:  # the mode of the last entry counts for all names of a file
            self.names[name] = names
            self.files[name] = info
        self._put(path, info, self.digests.get(target, b""))

    def _put(self, path: str, info: FileInfo, digest: bytes) -> None:
        """Note what is at a path now, in the place of whatever was there."""
        before = self.files.get(path)
        was_directory = path in self.implied or (before is not None and before.kind == kinds.DIRECTORY)
        if was_directory and info.kind != kinds.DIRECTORY:
            self._remove_below(path)
        self.files[path] = info
        self.digests.pop(path, None)
        if digest:
            self.digests[path] = digest

    def _remove_below(self, path: str) -> None:
        """What was a directory is none any more."""
        inside = f"{path}/"
        for other in [other for other in self.files if other.startswith(inside)]:
            del self.files[other]
            self.digests.pop(other, None)
            self._unlink(other)
        self.opaque = {other for other in self.opaque if other != path and not other.startswith(inside)}
        self.indirect = {other for other in self.indirect if not other.startswith(inside)}

    def _add_indirect(self, path: str) -> None:
        self.indirect.add(path)
        self.implied.update(_parents(path))

    def _unlink(self, path: str) -> None:
        """A path is no name any more of the file that had it."""
        self.names.pop(path, set()).discard(path)

    def _hide(self, directory: str, name: str) -> None:
        if name == OPAQUE_MARKER:
            self.opaque.add(directory)
            if directory and directory not in self.files:
                self._add_indirect(f"{directory}/{name}")
            return
        if name.startswith(META_PREFIX):
            return
        hidden = name[len(WHITEOUT_PREFIX) :]
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
