"""The sources of a COPY or ADD, each under one interface: known by what, taken from where, put how.

A source is first asked for its `identity`: a part of a recipe that can be had without reading content (an image's
layers, a git commit, content digests that the fingerprints know). Only when no cached step has it is the source
placed and read; what was read then gives its `content`, which later steps with another identity can be compared by.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from builder.config import ArchiveLimits
from builder.context.local import LocalTree
from builder.filesystem import kinds
from builder.filesystem.tree import FileTree
from builder.oci.digests import hex_of
from builder.plan.steps import CopyFiles
from builder.solver.fingerprints import Fingerprints
from builder.solver.keys import Recipe, encode
from builder.solver.lazy import lazy
from builder.solver.select import Item, Match, select

if TYPE_CHECKING:
    from builder.solver.place import Ownership
    from builder.solver.staging import Staging


class Destination:
    """Where and how: the absolute path, owner and mode, a directory for temporary files, what archives may hold."""

    __slots__ = ("limits", "ownership", "path", "scratch")

    def __init__(self, path: str, ownership: Ownership, scratch: str, limits: Callable[[], ArchiveLimits]) -> None:
        self.path = path
        self.ownership = ownership
        self.scratch = scratch
        self.limits = limits


class Source(Protocol):
    """One source of a step."""

    def identity(self) -> Any | None:
        """What the source is, for a recipe, if that can be said without reading it; None otherwise."""

    def place(self, staging: Staging, destination: Destination) -> None:
        """Stage what the source gives."""

    def content(self) -> Any:
        """What the source gives, for a recipe, after it was placed; reads what nobody has read yet."""


_FILE = int(kinds.FILE)
_AT_ONCE = 10_000  # items


class Overrides(msgspec.Struct, frozen=True):
    """What a step's flags replace in the files that it takes, so that it is no part of what the source is: the owner
    (`--chown`), the mode (a numeric `--chmod`; a symbolic one builds on the mode)."""

    owner: bool = False
    mode: bool = False


KEPT = Overrides()
"""Files are taken as they are."""


class FilesSource:
    """Files of a tree: of a stage or an image (`layers`), or of a context, whose `fingerprints` are opened if it is a
    directory of the host that may come again."""

    def __init__(
        self,
        source: CopyFiles,
        open_tree: Callable[[], FileTree],
        excludes: tuple[str, ...],
        *,
        layers: Sequence[str] | None = None,
        fingerprints: Callable[[LocalTree, Sequence[str]], Fingerprints | None] | None = None,
        overrides: Overrides = KEPT,
    ) -> None:
        self._source = source
        self._open_tree = open_tree
        self._excludes = excludes
        self.layers = layers
        self._open_fingerprints = fingerprints
        self._overrides = overrides
        self._digests: dict[str, bytes] = {}
        self._read: set[str] | None = None  # the files whose content was read for it, if that of others was known
        self._known: str | None = None
        self._recalled = False

    @lazy
    def tree(self) -> FileTree:
        return self._open_tree()

    @lazy
    def _fingerprints(self) -> Fingerprints | None:
        if self._open_fingerprints is None or not isinstance(self.tree, LocalTree):
            return None
        source = self._source
        overrides = f"{self._overrides.owner:d}{self._overrides.mode:d}"
        return self._open_fingerprints(
            self.tree, (source.path, repr(source.pattern), str(source.unpack), overrides, *self._excludes)
        )

    def identity(self) -> Any | None:
        if self.layers is not None:
            return {"layers": list(self.layers), **self._selection()}
        if self._known is None:
            self._recognise()
        return {"files": self._known} if self._known is not None else None

    def _recognise(self) -> None:
        """Find out what the files are without reading them, if that can be."""
        prints = self._fingerprints
        if prints is not None and not self._recalled:
            self._known = prints.unchanged(self.matches)
            if self._known is not None:
                return
            self._recall()
        if all(item.path in self._digests for match in self.matches for item in match.items if _is_file(item)):
            self._describe_all()

    def _recall(self) -> None:
        """Take the digests of the files that are as they were when they were read last."""
        if self._fingerprints is not None and not self._recalled:
            self._recalled = True
            known = self._fingerprints.known(self.matches)
            if known:
                self._read = set(self._digests)
                self._digests = known | self._digests

    def _selection(self) -> dict[str, Any]:
        return {"path": self._source.path, "pattern": self._source.pattern, "unpack": self._source.unpack}

    @lazy
    def matches(self) -> list[Match]:
        return select(self.tree, self._source, self._excludes)

    def observe(self, path: str, digest: bytes) -> None:
        """Take over the digest of a file that was read while the layer was written."""
        self._digests[path] = digest
        if self._read is not None:
            self._read.add(path)

    def digests(self) -> Mapping[str, bytes]:
        """The SHA-256 of each file's content, as far as it is known without reading it; and of what is read later."""
        self._recall()  # which was not needed so far, if all of this source is as it was
        return self._digests

    def place(self, staging: Staging, destination: Destination) -> None:
        from builder.solver.place import place

        for number, match in enumerate(self.matches):
            if self._is_archive(match):
                from builder.solver.extract import extract

                spool = os.path.join(destination.scratch, f"spool-{id(self):x}-{number}")
                extract(
                    staging,
                    self.tree,
                    match.path,
                    destination.path,
                    destination.ownership,
                    spool,
                    destination.limits(),
                )
            else:
                place(staging, self.tree, match, destination.path, destination.ownership)

    def _is_archive(self, match: Match) -> bool:
        """Whether ADD unpacks it."""
        if not self._source.unpack or match.info.kind != kinds.FILE:
            return False
        from builder.solver.extract import is_archive

        return is_archive(self.tree, match.path)

    def content(self) -> Any:
        from builder.solver.assemble import digest_file
        from builder.solver.staging import TreeContent

        self._recall()
        for match in self.matches:
            for item in match.items:
                if item.path not in self._digests and _is_file(item):
                    self.observe(item.path, digest_file(TreeContent(self.tree, item.path), item.info.size))
        if self._fingerprints is not None:
            self._fingerprints.learn(self.matches, self._digests, self._read)
        return self._describe_all()

    def _describe_all(self) -> Any:
        """The description of what is taken, whose digest then says what this source is."""
        described = self._described()
        self._known = hex_of(encode({"files": described}))
        if self._fingerprints is not None:
            self._fingerprints.keep(self.matches, self._known)
        return described

    def forget(self) -> None:
        """Let go of the digests of files, now that they are written and the content was told for the last time."""
        self._digests.clear()
        self._read = None

    def times(self) -> list[int]:
        """The times of what is taken, in seconds, as they reach the layer: all but those of whole trees."""
        return [item.info.mtime_ns // 1_000_000_000 for match in self.matches for item in match.items if item.path]

    def _described(self) -> Any:
        """The matches with everything that can reach a layer, except times; the items encoded."""
        links: dict[tuple[int, int], int] = {}
        return [
            {
                "name": match.name,
                "unpack": self._source.unpack,
                "items": self._encode(match.items, links),
            }
            for match in self.matches
        ]

    def _encode(self, items: Sequence[Item], links: dict[tuple[int, int], int]) -> msgspec.Raw:
        """The description of the items, by parts: as data it would take twice as much memory as this."""
        data = bytearray(b"[")
        for start in range(0, len(items), _AT_ONCE):
            data += b"," if start else b""
            data += encode([self._describe(item, links) for item in items[start : start + _AT_ONCE]])[1:-1]
        data += b"]"
        return msgspec.Raw(data)

    def _describe(self, item: Item, links: dict[tuple[int, int], int]) -> list[Any]:
        """One entry: `[relative path, kind, mode, uid, gid, …]`. Null is what is overridden, and mode and owner of a
        directory whose contents alone are taken. A directory that is only there for what is below it keeps its mode,
        which the parent's may get (see `place`)."""
        info = item.info
        overrides = self._overrides
        if info.kind == kinds.FILE and info.identity is None and not item.lazy and self.layers is None:  # most are
            mode = None if overrides.mode else info.mode
            digest = self._digests[item.path].hex()
            if overrides.owner:
                return [item.relative, _FILE, mode, None, None, digest]
            return [item.relative, _FILE, mode, info.uid, info.gid, digest]
        unseen = not item.relative and info.kind == kinds.DIRECTORY
        mode = info.mode
        if unseen or (overrides.mode and not item.lazy and info.kind != kinds.SYMLINK):
            mode = None
        owner: tuple[int | None, int | None] = (None, None) if unseen or overrides.owner else (info.uid, info.gid)
        described: list[Any] = [item.relative, int(info.kind), mode, *owner]
        if info.kind == kinds.FILE:
            described.append(self._digests[item.path].hex())
            if info.identity is not None:
                described.append(links.setdefault(info.identity, len(links)))
            xattrs = self.tree.xattrs(item.path) if self.layers is not None else {}
            if xattrs:
                described.append({name: value.hex() for name, value in sorted(xattrs.items())})
        elif info.kind == kinds.SYMLINK:
            described.append(info.link)
        elif info.device != (0, 0):
            described.append(list(info.device))
        if item.lazy:
            described.append("lazy")
        return described


def _is_file(item: Item) -> bool:
    return item.info.kind == kinds.FILE


class FetchedSource:
    """A file that was fetched from a URL, or the tree of a git repository that was checked out. `known_as` is what it
    is called in a recipe."""

    def __init__(self, files: FilesSource, known_as: Recipe) -> None:
        self._files = files
        self.known_as = known_as

    def identity(self) -> Any:
        return self.known_as

    def place(self, staging: Staging, destination: Destination) -> None:
        self._files.place(staging, destination)

    def content(self) -> Any:
        return self.known_as
