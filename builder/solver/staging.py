"""The root file system that a step builds up, in memory: changes over a parent that is only looked at.

`Staging` behaves like a file tree (so links resolve through it), collects what COPY, ADD and WORKDIR make, and gives
it back as layer entries in order. What it asked of its parent is recorded: those facts, and not the whole parent,
are what the step depends on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Protocol

import msgspec

from builder.errors import StepFailed
from builder.filesystem import kinds
from builder.filesystem.tree import FileInfo, FileTree


class Content(Protocol):
    """The bytes of a file that is still to be read."""

    def open(self) -> int:
        """A descriptor for reading, which the caller closes."""

    @property
    def offset(self) -> int | None:
        """Where the file begins in what the descriptor shows; None if it is all of it."""

    @property
    def name(self) -> str:
        """What people know the file as."""


class TreeContent(msgspec.Struct, frozen=True, gc=False):
    """A file of a tree."""

    tree: FileTree
    path: str
    offset: int | None = None

    def open(self) -> int:
        return self.tree.open(self.path)

    @property
    def name(self) -> str:
        return f"/{self.path}"


class PieceContent(msgspec.Struct, frozen=True, gc=False):
    """A part of a file of the host: a member of an archive that was spooled, or a file that was fetched."""

    file: str
    offset: int
    name: str

    def open(self) -> int:
        return os.open(self.file, os.O_RDONLY | os.O_CLOEXEC)


class Staged(msgspec.Struct, frozen=True, gc=False):
    """An entry of the layer to be. `hardlink` is the path of the entry that it is another name of."""

    path: str
    info: FileInfo
    content: Content | bytes | None = None
    xattrs: dict[str, bytes] = {}
    hardlink: str | None = None


class Run(Protocol):
    """New entries below a directory, of which nothing is kept but what they are made of: there may be a million. The
    same each time that they are asked for."""

    @property
    def directory(self) -> str:
        """The directory that they are below, which is new itself."""

    def entries(self) -> Iterator[Staged]:
        """The entries in the order of a layer. None is a hard link."""

    def stated(self) -> Iterator[tuple[str, FileInfo]]:
        """Their paths and metadata."""


class Fact(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a parent answered about a path: its kind, mode, owner and link target (`kind` None: nothing there)."""

    path: str
    kind: int | None = None
    mode: int = 0
    uid: int = 0
    gid: int = 0
    link: str = ""


class Staging:
    """Changes over `parent`. Paths are relative to the root, without slashes at the ends."""

    def __init__(self, parent: FileTree) -> None:
        self._parent = parent
        self._entries: dict[str, Staged] = {}
        self._runs: dict[str, Run] = {}  # by their directories
        self._put: dict[str, None] = {}  # paths above which there may be directories of the parent
        self._fresh: set[str] = set()
        self._links: dict[str, list[str]] = {}
        self._asked: dict[str, FileInfo | None] = {}

    def lstat(self, path: str) -> FileInfo | None:
        staged = self.staged(path)
        if staged is not None:
            return staged.info
        if self._hidden(path):
            return None
        return self._ask(path)

    def _hidden(self, path: str) -> bool:
        """Whether a directory that this step made, or something that is no directory, stands above `path`."""
        above = path
        while above:
            above = above.rpartition("/")[0]
            staged = self._entries.get(above)
            if staged is not None:
                return above in self._fresh or staged.info.kind != kinds.DIRECTORY
        return False

    def _ask(self, path: str) -> FileInfo | None:
        if path not in self._asked:
            self._asked[path] = self._parent.lstat(path)
        return self._asked[path]

    def put(self, staged: Staged) -> None:
        """Add an entry, in the place of whatever was there. Raises StepFailed if a hard link replaces its target."""
        path = staged.path
        known = self.lstat(path)
        if known is None or known.kind != kinds.DIRECTORY:
            if staged.info.kind == kinds.DIRECTORY:
                self._fresh.add(path)
        elif staged.info.kind != kinds.DIRECTORY:
            self._drop_below(path)
        self._forget(path)
        if staged.hardlink is not None:
            if self.staged(staged.hardlink) is None:
                raise StepFailed(f"/{path} cannot be a hard link to /{staged.hardlink}, in whose place it comes")
            self._links.setdefault(staged.hardlink, []).append(path)
        self._entries[path] = staged
        self._put[path] = None

    def put_new(self, staged: Staged) -> None:
        """Add an entry, which is no hard link, below a directory that this step made and where nothing is yet."""
        if staged.info.kind == kinds.DIRECTORY:
            self._fresh.add(staged.path)
        self._entries[staged.path] = staged

    def put_run(self, run: Run) -> None:
        """Add entries below a directory that this step made and in which nothing is yet."""
        self._runs[run.directory] = run

    def _unfold(self, path: str) -> None:
        """Make entries of the run in whose directory `path` is, so that it can be looked up or changed."""
        above = path
        while above and self._runs:
            above = above.rpartition("/")[0]
            run = self._runs.pop(above, None)
            for staged in run.entries() if run is not None else ():
                self.put_new(staged)

    def restate(self, path: str, info: FileInfo) -> None:
        """Change the metadata of an entry that this step made."""
        self._entries[path] = msgspec.structs.replace(self._entries[path], info=info)

    def _drop_below(self, path: str) -> None:
        for below in [known for known in self._entries if known.startswith(f"{path}/")]:
            self._fresh.discard(below)
            self._forget(below)
        for directory in [known for known in self._runs if f"{known}/".startswith(f"{path}/")]:
            del self._runs[directory]

    def _forget(self, path: str) -> None:
        """Take an entry away. The next of its hard links then holds the content."""
        gone = self._entries.pop(path, None)
        names = [
            name for name in self._links.pop(path, ()) if name in self._entries and self._entries[name].hardlink == path
        ]
        if gone is None or not names:
            return
        first, *others = names
        self._entries[first] = msgspec.structs.replace(gone, path=first, info=self._entries[first].info)
        for name in others:
            self._entries[name] = msgspec.structs.replace(self._entries[name], hardlink=first)
        self._links[first] = others

    def staged(self, path: str) -> Staged | None:
        """The entry that this step made at `path`, if it did."""
        self._unfold(path)
        return self._entries.get(path)

    def facts(self) -> tuple[Fact, ...]:
        """What was asked of the parent, in the order of paths. Times are no facts."""
        self._touch_parents()
        facts = []
        for path in sorted(self._asked):
            info = self._asked[path]
            if info is None:
                facts.append(Fact(path))
            else:
                facts.append(Fact(path, int(info.kind), info.mode, info.uid, info.gid, info.link))
        return tuple(facts)

    def clear(self) -> None:
        """Forget everything: of a million files the entries take as much memory as what was taken."""
        self._entries.clear()
        self._runs.clear()
        self._put.clear()
        self._fresh.clear()
        self._links.clear()
        self._asked.clear()

    def _touch_parents(self) -> dict[str, Staged]:
        """The parent's own directories above the new entries: a layer states them, with what they already were."""
        touched: dict[str, Staged] = {}
        for path in self._put:
            if path not in self._entries:
                continue  # something else came in its place, or in that of a directory above
            above = path.rpartition("/")[0]
            while above and above not in self._entries and above not in touched:
                info = self._ask(above)
                if info is not None:
                    touched[above] = Staged(above, info)
                above = above.rpartition("/")[0]
        return touched

    def stated(self) -> Iterator[tuple[str, FileInfo]]:
        """The paths of all entries of the layer, in no order, with what is there."""
        for entries in (self._touch_parents(), self._entries):
            for path, staged in entries.items():
                if path:
                    yield path, staged.info
        for run in self._runs.values():
            yield from run.stated()

    def entries(self) -> Iterator[Staged]:
        """All entries of the layer, a directory before what is in it, hard links after their first name."""
        touched = self._touch_parents()
        first: dict[str, str] = {}
        for path in in_order((*touched, *self._entries)):
            staged = self._entries.get(path) or touched[path]
            if not path:
                continue
            if staged.hardlink is None and path not in self._links:
                yield staged
                if path in self._runs:
                    yield from self._runs[path].entries()
                continue
            origin = staged.hardlink or path
            if origin in first:
                yield Staged(path, staged.info, hardlink=first[origin])
            elif staged.hardlink:
                first[origin] = path
                target = self._entries[origin]
                yield Staged(path, target.info, target.content, target.xattrs)
            else:
                first[origin] = path
                yield staged


def in_order(paths: Sequence[str]) -> Sequence[str]:
    """Different paths in the order of their components, in which directories were walked already: then nothing has to
    be made to sort by."""
    if all(one < other for one, other in pairwise(map(components, paths))):
        return paths
    return sorted(paths, key=components)


def components(path: str) -> str:
    """A text that sorts as the components of a path do."""
    return path.replace("/", "\0")
