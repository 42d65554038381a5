"""What a stack of layers holds, known from their tar streams alone: nothing is unpacked, mounted or run.

Only names and metadata are kept, never the bytes of files. Layers are applied as the image specification says
(layer.md) and as `unpack` does it: a whiteout hides what lies below, never an entry of its own layer, whatever their
order; an entry whose directory is a symbolic link goes where that leads inside the root; what is no directory replaces
a directory with all that is in it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from builder.errors import LayerError
from builder.filesystem import kinds
from builder.filesystem.archive import ArchiveEntry, Content, TarReader
from builder.filesystem.readable import Readable
from builder.filesystem.readahead import ReadAhead
from builder.filesystem.resolve import resolve
from builder.filesystem.tar import META_PREFIX, OPAQUE_MARKER, WHITEOUT_PREFIX
from builder.filesystem.tree import FileInfo

_IMPLICIT = FileInfo(kinds.DIRECTORY, 0o755)


class Stored(msgspec.Struct, frozen=True):
    """The content of a regular file as one layer stores it: entry number `number` (from 0) of the layer at position
    `layer` (from 0) of the stack, there called `path`. `digest` is its SHA-256, b"" where that was not asked for or the
    file is empty. Hard links share one."""

    layer: int
    number: int
    path: str
    size: int
    digest: bytes = b""


class Entry(msgspec.Struct, frozen=True):
    """A file as it shows through the stack. `layer` is the position of the layer that has this entry; `stored` the
    content of a regular file, which for a hard link may lie in a lower layer."""

    info: FileInfo
    layer: int
    stored: Stored | None = None
    xattrs: dict[str, bytes] | None = None


class Applied(msgspec.Struct, frozen=True):
    """One layer after it was applied. `size` and `diff_id` are those of its tar stream; `before` has each path that the
    layer made, replaced or removed, with what was there before; `stored` the content of its files in their order."""

    size: int
    diff_id: str
    before: dict[str, Entry | None]
    stored: list[Stored]


class Contents:
    """The files of a stack of layers, lowest applied first. It can be resolved in (`lstat`) like any tree."""

    def __init__(self) -> None:
        self.layers = 0
        self._root = Entry(_IMPLICIT, -1)
        self._children: dict[str, dict[str, Entry]] = {"": {}}  # by the real path of each directory
        self._before: dict[str, Entry | None] = {}
        self._cleared: set[str] = set()  # directories in which only this layer's entries are left

    def copy(self) -> Contents:
        """The same files; layers applied to the one are none of the other's."""
        made = Contents()
        made.layers, made._root = self.layers, self._root
        made._children = {path: entries.copy() for path, entries in self._children.items()}
        return made

    # --- reading

    def entry(self, path: str) -> Entry | None:
        """The entry at `path`, in which no symbolic link is followed; None if there is none."""
        if not path:
            return self._root
        directory, _, name = path.rpartition("/")
        return self._children.get(directory, {}).get(name)

    def lstat(self, path: str) -> FileInfo | None:
        entry = self.entry(path)
        return entry.info if entry is not None else None

    def scan(self, path: str) -> list[tuple[str, Entry]]:
        """The entries of a directory, sorted by their names' bytes; none for what is no directory."""
        return sorted(self._children.get(path, {}).items(), key=lambda item: os.fsencode(item[0]))

    def walk(self, path: str = "") -> Iterator[tuple[str, Entry]]:
        """All that is below a directory, each with its path, a directory before what is in it."""
        waiting = [iter(self.scan(path))]
        prefixes = [f"{path}/" if path else ""]
        while waiting:
            found = next(waiting[-1], None)
            if found is None:
                waiting.pop()
                prefixes.pop()
                continue
            name, entry = found
            below = prefixes[-1] + name
            yield below, entry
            if entry.info.kind == kinds.DIRECTORY:
                waiting.append(iter(self.scan(below)))
                prefixes.append(f"{below}/")

    # --- applying

    def apply(self, stream: Readable, *, digests: bool = False) -> Applied:
        """Apply the next layer, an uncompressed tar stream that is read to its end. With `digests` each file's content
        is hashed. Raises LayerError, whose place is the entry; the contents are then of no use any more."""
        before: dict[str, Entry | None] = {}
        self._before = before
        self._cleared.clear()
        stored: list[Stored] = []
        with ReadAhead(stream) as chunks:
            reader = TarReader(chunks)
            for number, entry in enumerate(reader):
                self._apply_entry(entry, number, stored, digests)
            reader.drain()
            self.layers += 1
            return Applied(chunks.size, chunks.digest, before, stored)

    def _apply_entry(self, entry: ArchiveEntry, number: int, stored: list[Stored], digests: bool) -> None:
        directory, _, name = entry.path.rpartition("/")
        info = entry.info
        if not name:
            if info.kind != kinds.DIRECTORY:
                raise LayerError("the root of an archive must be a directory", place="/")
            self._before.setdefault("", self._root)
            self._root = Entry(info, self.layers, None, entry.xattrs or None)
        elif name.startswith(WHITEOUT_PREFIX):
            self._whiteout(directory, name, entry.path)
        else:
            directory = self._directory(directory)
            path = f"{directory}/{name}" if directory else name
            if info.kind == kinds.HARDLINK:
                self._set(path, self._linked(entry))
                return
            content = None
            if info.kind == kinds.FILE:
                content = Stored(self.layers, number, path, info.size, _digest(entry.content) if digests else b"")
                stored.append(content)
            self._set(path, Entry(info, self.layers, content, entry.xattrs or None))

    def _linked(self, entry: ArchiveEntry) -> Entry:
        """The entry of a hard link: its target's."""
        directory, _, name = (entry.hardlink or "").rpartition("/")
        directory = resolve(self, directory)
        target = self.entry(f"{directory}/{name}" if directory else name) if name else None
        if target is None or target.info.kind == kinds.DIRECTORY:
            raise LayerError(f"its hard link leads to {entry.hardlink!r}, which is no earlier entry", place=entry.path)
        return Entry(target.info, self.layers, target.stored, target.xattrs)

    def _directory(self, path: str) -> str:
        """The real path of the directory that an entry lies in, which is made if no layer has it."""
        if path in self._children:
            return path
        real = resolve(self, path)
        if real not in self._children:
            made = ""
            for part in real.split("/"):
                made = f"{made}/{part}" if made else part
                entry = self.entry(made)
                if entry is None:
                    self._set(made, Entry(_IMPLICIT, self.layers))
                elif entry.info.kind != kinds.DIRECTORY:
                    raise LayerError("an entry lies below it, but it is no directory", place=made)
        return real

    def _set(self, path: str, entry: Entry) -> None:
        existing = self.entry(path)
        self._before.setdefault(path, existing)
        if entry.info.kind == kinds.DIRECTORY:
            self._children.setdefault(path, {})
        elif existing is not None and existing.info.kind == kinds.DIRECTORY:
            self._clear(path, -1)
            del self._children[path]
        directory, _, name = path.rpartition("/")
        self._children[directory][name] = entry

    def _whiteout(self, directory: str, name: str, place: str) -> None:
        real = directory if directory in self._children else resolve(self, directory)
        if name == OPAQUE_MARKER:
            if real in self._children:
                self._hide(real)
            return
        if name.startswith(META_PREFIX):
            return
        hidden = name[len(WHITEOUT_PREFIX) :]
        if hidden in ("", ".", ".."):
            raise LayerError(f"a whiteout of {hidden!r}", place=place)
        path = f"{real}/{hidden}" if real else hidden
        entry = self.entry(path)
        if entry is None:
            return
        if entry.info.kind == kinds.DIRECTORY:
            self._hide(path)
        self._drop(path, self.layers)

    def _hide(self, directory: str) -> None:
        """Remove what the layers below have in a directory; once, however often a layer says so."""
        if directory not in self._cleared:
            self._cleared.add(directory)
            self._clear(directory, self.layers)

    def _clear(self, top: str, keep: int) -> None:
        """Remove what is in a directory, except for entries of the layer at position `keep` and what leads to them."""
        directories = [top]
        for directory in directories:  # grows meanwhile: parents come before what is in them
            prefix = f"{directory}/" if directory else ""
            found = self._children[directory].items()
            directories += [prefix + name for name, entry in found if entry.info.kind == kinds.DIRECTORY]
        for directory in reversed(directories):
            prefix = f"{directory}/" if directory else ""
            for name in list(self._children[directory]):
                self._drop(prefix + name, keep)

    def _drop(self, path: str, keep: int) -> None:
        """Remove one entry unless it is of the layer at position `keep`. A directory in which something was kept stays
        as one that this layer implies."""
        directory, _, name = path.rpartition("/")
        siblings = self._children[directory]
        entry = siblings[name]
        if entry.layer == keep:
            return
        self._before.setdefault(path, entry)
        if self._children.get(path):
            siblings[name] = Entry(_IMPLICIT, self.layers)
            return
        self._children.pop(path, None)
        del siblings[name]


def read_files(stream: Readable, wanted: Iterable[Stored]) -> Iterator[tuple[Stored, Content]]:
    """The content of files of one layer, from its tar stream, in the order they lie in it; nothing behind the last is
    read. Each content is good until the next is asked for. Raises LayerError."""
    missing = {stored.number: stored for stored in wanted}
    chunks = iter(lambda: stream.read(1 << 20), b"")
    for number, entry in enumerate(TarReader(chunks)):
        stored = missing.pop(number, None)
        if stored is not None:
            yield stored, entry.content
        if not missing:
            return


def difference(before: Entry, after: Entry) -> Sequence[str]:
    """In what two entries for one path differ: type, mode, owner, content, link, device, xattrs; empty if in nothing.

    Times do not count. Contents whose digests were not asked for are compared by their sizes.
    """
    if before is after:
        return ()
    old, new = before.info, after.info
    if old.kind is not new.kind:
        return ("type",)
    found = []
    if old.kind != kinds.SYMLINK and old.mode != new.mode:  # the modes of links mean nothing
        found.append("mode")
    if (old.uid, old.gid) != (new.uid, new.gid):
        found.append("owner")
    if before.stored != after.stored and _content(before) != _content(after):
        found.append("content")
    if old.link != new.link:
        found.append("link")
    if old.device != new.device:
        found.append("device")
    if before.xattrs != after.xattrs:
        found.append("xattrs")
    return found


def _content(entry: Entry) -> tuple[int, bytes]:
    return (entry.stored.size, entry.stored.digest) if entry.stored is not None else (0, b"")


def _digest(content: Content) -> bytes:
    if not content.left:
        return b""
    hasher = hashlib.sha256()
    for piece in content.chunks():
        hasher.update(piece)
    return hasher.digest()
