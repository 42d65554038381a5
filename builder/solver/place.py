"""Where a COPY or ADD puts what it took: the rules of BuildKit's fsutil `copy` package, on a `Staging`.

A destination that ends in a slash, or is a directory, takes files into it; the contents of a source directory go into
the destination; missing directories are made with the owner and mode of the step; a directory never replaces a file
nor a file a directory.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from builder.errors import StepFailed
from builder.filesystem import kinds
from builder.filesystem.resolve import resolve
from builder.filesystem.tree import FileInfo, FileTree
from builder.plan.modes import apply_mode
from builder.plan.paths import clean
from builder.solver.select import Item, Match
from builder.solver.staging import Staged, Staging, TreeContent, components, in_order

_NO_XATTRS: dict[str, bytes] = {}
"""One for all files that have none."""


class Ownership(msgspec.Struct, frozen=True):
    """What --chown and --chmod ask for (None: keep the source's), and the time of what is made, in nanoseconds."""

    owner: tuple[int, int] | None = None
    chmod: int | str | None = None
    now_ns: int = 0

    def apply(self, info: FileInfo) -> FileInfo:
        """A file's metadata as it will be in the image."""
        if self.owner is None and self.chmod is None:
            return info
        uid, gid = self.owner if self.owner is not None else (info.uid, info.gid)
        mode = info.mode
        if self.chmod is not None and info.kind != kinds.SYMLINK:
            mode = apply_mode(self.chmod, mode, info.kind == kinds.DIRECTORY)
        if (mode, uid, gid) == (info.mode, info.uid, info.gid):
            return info
        return FileInfo(info.kind, mode, uid, gid, info.size, info.mtime_ns, info.link, info.device)

    def new_directory(self) -> FileInfo:
        """The metadata of a directory that has to be made: 0755, unless --chmod gives a number."""
        uid, gid = self.owner or (0, 0)
        mode = self.chmod & 0o777 if isinstance(self.chmod, int) else 0o755
        return FileInfo(kinds.DIRECTORY, mode, uid, gid, 0, self.now_ns)


def make_directories(staging: Staging, path: str, made: FileInfo) -> None:
    """`mkdir -p`: `path` is resolved already. Raises StepFailed where something else than a directory is in the way."""
    parts = [part for part in path.split("/") if part]
    for end in range(1, len(parts) + 1):
        here = "/".join(parts[:end])
        info = staging.lstat(here)
        if info is None:
            staging.put(Staged(here, made))
        elif info.kind != kinds.DIRECTORY:
            raise StepFailed(
                f"cannot make the directory /{path}: /{here} is not a directory",
                remedy="name another place, or remove that in a RUN before",
            )


def place(staging: Staging, tree: FileTree, match: Match, destination: str, ownership: Ownership) -> None:
    """Put one match below `destination` (absolute, with its trailing slash). Raises StepFailed."""
    made = ownership.new_directory()
    # As in BuildKit, `..` is taken away before links are looked at.
    path = clean(destination)
    into = destination.rpartition("/")[2] in ("", ".")
    make_directories(staging, resolve(staging, path if into else path.rpartition("/")[0]), made)
    target = resolve(staging, path)
    existing = staging.lstat(target)
    if match.info.kind == kinds.DIRECTORY:
        if existing is None:
            make_directories(staging, target, made)  # only the contents are copied, not the directory's own metadata
        _take_time(staging, target, match)
    elif existing is not None and existing.kind == kinds.DIRECTORY:
        target = f"{target}/{match.name}" if target else match.name
        make_directories(staging, target.rpartition("/")[0], made)
    else:
        make_directories(staging, target.rpartition("/")[0], made)
    is_new = match.info.kind == kinds.DIRECTORY and existing is None
    _Placement(staging, tree, target, ownership).put_all(match.items, is_new=is_new)


def _take_time(staging: Staging, target: str, match: Match) -> None:
    """Give the directory that takes another's contents the time of that: of its metadata this alone, as in BuildKit
    (`copyFileTimestamp` of fsutil). That of a whole tree, a context's or an image's, is not known there."""
    info = staging.lstat(target) if target and match.path else None
    if info is not None and info.kind == kinds.DIRECTORY:
        timed = FileInfo(info.kind, info.mode, info.uid, info.gid, info.size, match.info.mtime_ns)
        staging.put(Staged(target, timed))


class _Placement:
    """The copying of one match to `target`; hard links are kept within it."""

    def __init__(self, staging: Staging, tree: FileTree, target: str, ownership: Ownership) -> None:
        self._staging = staging
        self._tree = tree
        self._target = target
        self._prefix = f"{target}/" if target else ""
        self._ownership = ownership
        self._links: dict[tuple[int, int], str] = {}

    def put_all(self, items: tuple[Item, ...], *, is_new: bool) -> None:
        """Put a match's items, a directory's before what is in it. With `is_new` the target is a directory that was
        made for them."""
        position = 0
        while position < len(items):
            item = items[position]
            path = self._path(item)
            position += 1
            if item.info.kind != kinds.DIRECTORY:
                self._put_file(item, path)
            elif self._put_directory(item, path) or (is_new and path and not item.relative):
                end = _end_of(items, position, item.relative)
                self._put_below(path, items[position:end])
                position = end

    def _path(self, item: Item) -> str:
        return self._prefix + item.relative if item.relative else self._target

    def _put_below(self, directory: str, items: tuple[Item, ...]) -> None:
        """Put what is below a directory that was not there before: nothing is in its way but its own hard links."""
        if all(item.info.identity is None for item in items):
            self._staging.put_run(_Run(self, directory, items))
            return
        for item in items:
            if item.info.identity is None:
                self._staging.put_new(self.staged(item))
            else:
                self._put_file(item, self._path(item))

    def staged(self, item: Item) -> Staged:
        """The entry of an item that is no hard link."""
        info = self._ownership.apply(item.info)
        content = TreeContent(self._tree, item.path) if info.kind == kinds.FILE else None
        return Staged(self._path(item), info, content, self._xattrs(item))

    def stated(self, item: Item) -> tuple[str, FileInfo]:
        """The path and metadata of an item."""
        return self._path(item), self._ownership.apply(item.info)

    def _put_directory(self, item: Item, path: str) -> bool:
        """Put a directory; whether it was not there before."""
        existing = self._staging.lstat(path)
        if existing is not None and existing.kind != kinds.DIRECTORY:
            raise StepFailed(
                f"cannot copy the directory /{item.path} onto /{path}, which is not a directory",
                remedy="remove it in an earlier step, or choose another destination",
            )
        info = self._ownership.apply(item.info)
        if existing is None:
            self._staging.put(Staged(path, info, xattrs=self._xattrs(item)))
            return True
        if item.lazy:
            kept = msgspec.structs.replace(existing, mode=item.info.mode)
            self._staging.put(Staged(path, kept))
        elif item.relative:
            self._staging.put(Staged(path, info, xattrs=self._xattrs(item)))
        return False

    def _put_file(self, item: Item, path: str) -> None:
        existing = self._staging.lstat(path)
        if existing is not None and existing.kind == kinds.DIRECTORY:
            raise StepFailed(
                f"cannot copy the file /{item.path} onto /{path}, which is a directory",
                remedy=f"end the destination with a slash, or remove /{path} in an earlier step",
            )
        info = self._ownership.apply(item.info)
        identity = item.info.identity if item.info.links > 1 and item.info.kind == kinds.FILE else None
        if identity is not None and identity in self._links:
            self._staging.put(Staged(path, info, hardlink=self._links[identity]))
            return
        if identity is not None:
            self._links[identity] = path
        content = TreeContent(self._tree, item.path) if item.info.kind == kinds.FILE else None
        self._staging.put(Staged(path, info, content, self._xattrs(item)))

    def _xattrs(self, item: Item) -> dict[str, bytes]:
        """What it has in the image. Contexts, which may have a million files, have none."""
        found = self._tree.xattrs(item.path)
        return {name: value for name, value in found.items() if not name.startswith("user.")} if found else _NO_XATTRS


class _Run:
    """Items below a directory that the placement made, see `staging.Run`."""

    def __init__(self, placement: _Placement, directory: str, items: tuple[Item, ...]) -> None:
        self.directory = directory
        self._placement = placement
        paths = [item.relative for item in items]
        if in_order(paths) is not paths:
            items = tuple(sorted(items, key=lambda item: components(item.relative)))
        self._items = items

    def entries(self) -> Iterator[Staged]:
        return map(self._placement.staged, self._items)

    def stated(self) -> Iterator[tuple[str, FileInfo]]:
        return map(self._placement.stated, self._items)


def _end_of(items: tuple[Item, ...], start: int, directory: str) -> int:
    """Where those end that are below `directory`, of which the first is at `start`."""
    if not directory:
        return len(items)
    prefix = f"{directory}/"
    end = start
    while end < len(items) and items[end].relative.startswith(prefix):
        end += 1
    return end
