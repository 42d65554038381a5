"""Recognises files that were read before, so that an unchanged context is not read again.

What a COPY takes is recognised in two steps. The first is one xxh3 over what the file system says of everything that
is taken (names, kinds, modes, sizes, times, inodes): if that is as it was, so is the content, whose digest is kept with
it. Else each file is compared: size, time of modification, inode and its change time, kept with the SHA-256 of the
content that was read then. A file that changed just before it was looked at is not trusted, because a later change
could bear the same time (`filesystem.moments`). What is learnt of a few files later is kept apart: to write all takes
time.
"""

# No postponed annotations: msgspec would compile each of them before it first decodes one of the classes here.
import os
from collections.abc import Iterable, Mapping, Sequence, Set

import msgspec
import xxhash

from builder.filesystem import kinds
from builder.filesystem.moments import Moment
from builder.solver.select import Item, Match
from builder.store.database import Database
from builder.store.records import storable

_FILES = "files-3"
_LATER = "files-3-later"
_SELECTION = "selection-3"
_AT_ONCE = 10_000  # items; encoding all of a million would take as much memory as they do
_FEW = 8  # times as many files there are at least as are kept apart


class Fingerprint(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the file system said of a file, and the SHA-256 of its content then."""

    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int
    sha256: bytes


class Fingerprints:
    """What is known of the files of one context. `root` is its directory, which was looked at after the moment `since`,
    `selection` what tells a COPY of it from others: its path and patterns."""

    def __init__(self, database: Database, root: str, selection: Sequence[str], since: Moment) -> None:
        self._database = database
        self._root = root
        self._since = since
        self._key = storable("\0".join((os.path.abspath(root), *selection)))
        self._seen: tuple[Sequence[Match], bytes | None] = ((), None)
        self._later: dict[str, Fingerprint] | None = None  # what is kept apart; None: there is nothing else

    def unchanged(self, matches: Sequence[Match]) -> str | None:
        """The digest that was given to `keep`, if the file system says that nothing has changed since."""
        seen = self._database.memo(_SELECTION, self._key)
        state = self._state(matches) if seen is not None else None
        if seen is None or state is None or not seen.startswith(state):
            return None
        return seen[len(state) :].decode("ascii")

    def keep(self, matches: Sequence[Match], digest: str) -> None:
        """Keep the digest of what the matches hold, unless some file is too young to be trusted."""
        for match in matches:
            for item in match.items:
                if item.info.kind == kinds.FILE and not self._is_trusted(item):
                    return
        state = self._state(matches)
        if state is not None:
            self._database.add_memo(_SELECTION, self._key, state + digest.encode("ascii"))

    def _is_trusted(self, item: Item) -> bool:
        """Whether a file will look otherwise when it has changed once more."""
        return item.info.inode != 0 and self._since.is_past(item.info.changed_ns, self._root)

    def _state(self, matches: Sequence[Match]) -> bytes | None:
        """What `_state` says of the matches, which nobody changes."""
        if self._seen[0] is not matches:
            self._seen = (matches, _state(matches))
        return self._seen[1]

    def known(self, matches: Sequence[Match]) -> dict[str, bytes]:
        """The SHA-256 of those files that are as they were, by their paths in the tree."""
        prints = self._kept(_FILES)
        if prints is None:
            return {}
        self._later = self._kept(_LATER) or {}
        prints.update(self._later)
        found = {}
        for match in matches:
            for item in match.items:
                info, seen = item.info, prints.get(item.path)
                if (
                    seen is not None
                    and info.inode == seen.inode
                    and info.changed_ns == seen.ctime_ns
                    and info.size == seen.size
                    and info.mtime_ns == seen.mtime_ns
                    and info.kind == kinds.FILE
                ):
                    found[item.path] = seen.sha256
        return found

    def _kept(self, kind: str) -> dict[str, Fingerprint] | None:
        data = self._database.memo(kind, self._key)
        try:
            return msgspec.msgpack.decode(data, type=dict[str, Fingerprint]) if data is not None else None
        except msgspec.MsgspecError:
            return None

    def learn(self, matches: Sequence[Match], digests: Mapping[str, bytes], read: Set[str] | None = None) -> None:
        """Keep the digests of the matches' files. `read` are the paths of those that `known` did not know (None: that
        was not asked); if they are few, nothing else is written."""
        later = self._later
        if later is not None and read is not None:
            few = (len(later) + len(read)) * _FEW
            if few < sum(len(match.items) for match in matches):
                items = [item for match in matches for item in match.items if item.path in read]
                new = self._prints(items, digests)
                if new:
                    self._database.add_memo(_LATER, self._key, _encode([{**later, **new}]))
                return
        parts = (
            self._prints(match.items[start : start + _AT_ONCE], digests)
            for match in matches
            for start in range(0, len(match.items), _AT_ONCE)
        )
        self._database.add_memo(_FILES, self._key, _encode(parts))
        if later is None or later:
            self._database.add_memo(_LATER, self._key, _encode(()))

    def _prints(self, items: Sequence[Item], digests: Mapping[str, bytes]) -> dict[str, Fingerprint]:
        """What is to be kept of those items that can be trusted."""
        return {
            item.path: Fingerprint(item.info.size, item.info.mtime_ns, item.info.inode, item.info.changed_ns, digest)
            for item in items
            if (digest := digests.get(item.path)) is not None and self._is_trusted(item)
        }


def _encode(parts: Iterable[dict[str, Fingerprint]]) -> bytes:
    """Maps as one, in MessagePack."""
    count, data = 0, bytearray(5)  # the map's head
    for part in parts:
        count += _add_entries(data, part)
    data[:5] = b"\xdf" + count.to_bytes(4, "big")
    return bytes(data)


def _state(matches: Sequence[Match]) -> bytes | None:
    """The xxh3 of all that the file system says of the matches; None for names that are not UTF-8."""
    state, encode = xxhash.xxh3_128(), msgspec.msgpack.encode
    try:
        for match in matches:
            state.update(encode((match.name, match.path, match.info, len(match.items))))
            for start in range(0, len(match.items), _AT_ONCE):
                state.update(encode(match.items[start : start + _AT_ONCE]))
    except UnicodeEncodeError:
        return None
    return state.digest()


def _add_entries(data: bytearray, part: dict[str, Fingerprint]) -> int:
    """Add the entries of a map to another's, as MessagePack; returns how many. Names that are not UTF-8 have no form
    there, and are left out."""
    try:
        encoded = msgspec.msgpack.encode(part)
    except UnicodeEncodeError:
        part = {path: seen for path, seen in part.items() if path.isascii() or _is_unicode(path)}
        encoded = msgspec.msgpack.encode(part)
    data += memoryview(encoded)[1 if len(part) < 1 << 4 else 3 if len(part) < 1 << 16 else 5 :]
    return len(part)


def _is_unicode(path: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in path)
