"""What the layers of COPY, ADD and WORKDIR have, in short: the next such step asks for a few paths, for which a layer
of thirty thousand files need not be unpacked.

An outline has the layer's directories, and of all other paths a hash. Where a hash is found the layers are unpacked
after all. It is kept beside the layer, for builds to come.
"""

# No postponed annotations: msgspec would compile each of them before it first decodes one of the classes here.
from array import array
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
import xxhash

from builder.filesystem import kinds
from builder.filesystem.tar import WHITEOUT_PREFIX
from builder.filesystem.tree import FileInfo, FileTree
from builder.solver.lazy import lazy
from builder.solver.roots import Layers, root_tree
from builder.solver.staging import Staging

if TYPE_CHECKING:
    from builder.solver.environment import Environment

_KIND = "outline-1"
_SECOND = 1_000_000_000
_ROOT = FileInfo(kinds.DIRECTORY, 0o755)  # these steps do not state it, so that it is unpacked as this


class Outline(msgspec.Struct, frozen=True):
    """`directories` by their paths; `others` are the sorted hashes of all other paths."""

    directories: Mapping[str, FileInfo]
    others: Sequence[int]

    def may_have(self, hashed: Sequence[int]) -> bool:
        """Whether something else than a directory is at one of the paths with these hashes, or, very rarely, is not."""
        others = self.others
        for one in hashed:
            place = bisect_left(others, one)
            if place < len(others) and others[place] == one:
                return True
        return False


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """An outline as it is kept: of each directory path, mode, owner, group and time in nanoseconds."""

    directories: list[tuple[str, int, int, int, int]]
    others: bytes


def outline_of(staging: Staging, epoch: int | None) -> bytes | None:
    """The outline of the layer that `staging` becomes, as it is kept; with `epoch` (seconds) no entry of the layer is
    younger. None where a directory's name is not UTF-8, and where a name may make the entry a whiteout."""
    directories = []
    others = array("Q")
    for path, info in staging.stated():
        if WHITEOUT_PREFIX in path:
            return None
        if info.kind != kinds.DIRECTORY:
            others.append(_hash(path))
            continue
        seconds = info.mtime_ns // _SECOND  # as a tar archive has it
        mtime_ns = (seconds if epoch is None else min(seconds, epoch)) * _SECOND
        directories.append((path, info.mode, info.uid, info.gid, mtime_ns))
    try:
        return msgspec.msgpack.encode(_Kept(directories, array("Q", sorted(others)).tobytes()))
    except UnicodeEncodeError:
        return None


def keep_outline(environment: "Environment", diff_id: str, outline: bytes | None) -> None:
    """Keep what `outline_of` said of a layer that is in the store now."""
    if outline is not None:
        environment.store.database.add_memo(_KIND, diff_id, outline)


def seen_tree(environment: "Environment", layers: Layers) -> FileTree:
    """The files of a stack of layers, as `root_tree` gives them, for whoever looks at few of them."""
    outlines: list[Outline] = []
    rest = layers
    while rest and (outline := _outline(environment, rest[-1])) is not None:
        outlines.append(outline)
        rest = rest[:-1]
    if not outlines:
        return root_tree(environment, layers)
    return OutlinedTree(outlines, lambda: root_tree(environment, rest), lambda: root_tree(environment, layers))


def _outline(environment: "Environment", diff_id: str) -> Outline | None:
    known = environment.outlines.get(diff_id)
    if known is not None:
        return known
    data = environment.store.database.memo(_KIND, diff_id)
    if data is None:
        return None
    try:
        kept = msgspec.msgpack.decode(data, type=_Kept)
        others = array("Q", kept.others)
    except (msgspec.MsgspecError, ValueError):
        return None
    directories = {
        path: FileInfo(kinds.DIRECTORY, mode, uid, gid, 0, mtime_ns)
        for path, mode, uid, gid, mtime_ns in kept.directories
    }
    known = environment.outlines[diff_id] = Outline(directories, others)
    return known


class OutlinedTree:
    """A `FileTree` over layers of which the topmost are known by their outlines, top first. `open_below` opens the tree
    of the layers below those, `open_whole` that of all, for what outlines do not tell."""

    def __init__(
        self, outlines: Sequence[Outline], open_below: Callable[[], FileTree], open_whole: Callable[[], FileTree]
    ) -> None:
        self._outlines = outlines
        self._open_below = open_below
        self._open_whole = open_whole

    @lazy
    def _below(self) -> FileTree:
        return self._open_below()

    @lazy
    def _whole(self) -> FileTree:
        return self._open_whole()

    def lstat(self, path: str) -> FileInfo | None:
        if not path:
            return _ROOT
        hashed = _hashes(path)
        for outline in self._outlines:
            info = outline.directories.get(path)
            if info is not None:
                return info
            if outline.may_have(hashed):
                return self._whole.lstat(path)
        return self._below.lstat(path)

    def scan(self, path: str) -> list[tuple[str, FileInfo]]:
        return self._whole.scan(path)

    def open(self, path: str) -> int:
        return self._holding(path).open(path)

    def xattrs(self, path: str) -> dict[str, bytes]:
        return self._holding(path).xattrs(path)

    def _holding(self, path: str) -> FileTree:
        """A tree that has what is at a path: the one below, unless the outlined layers have something there."""
        hashed = _hashes(path)
        if any(path in outline.directories or outline.may_have(hashed) for outline in self._outlines):
            return self._whole
        return self._below


def _hashes(path: str) -> list[int]:
    """The hashes of a path and of all that lead to it."""
    found = [_hash(path)]
    while path := path.rpartition("/")[0]:
        found.append(_hash(path))
    return found


def _hash(path: str) -> int:
    return xxhash.xxh3_64_intdigest(path.encode("utf-8", "surrogateescape"))
