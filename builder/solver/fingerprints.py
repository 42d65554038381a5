"""Recognises files that were read before, so that an unchanged context is not read again.

For each source of a COPY the store keeps, file by file, size, time of modification, inode and its change time, with the
SHA-256 of the content that was read then. A file that changed less than two seconds before it was read is not
trusted, because a later change could bear the same time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import msgspec

from builder.filesystem.tree import FileInfo, Kind
from builder.solver.select import Match
from builder.store.database import Database

_KIND = "files-1"
_SETTLED_NS = 2_000_000_000


class Fingerprint(msgspec.Struct, frozen=True, array_like=True):
    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int
    digest: str


class Fingerprints:
    """What is known of the files below one host directory."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._decoder = msgspec.msgpack.Decoder(dict[str, Fingerprint])
        self._encoder = msgspec.msgpack.Encoder()

    def known(self, root: str, match: Match) -> dict[str, str]:
        """The digests of those files of a match that are as they were, by their paths in the tree."""
        data = self._database.memo(_KIND, _key(root, match))
        if data is None:
            return {}
        try:
            prints = self._decoder.decode(data)
        except msgspec.MsgspecError:
            return {}
        found = {}
        for item in match.items:
            info = item.info
            if info.kind is Kind.FILE:
                seen = prints.get(item.path)
                if seen is not None and info.version == (seen.inode, seen.ctime_ns) and _same(info, seen):
                    found[item.path] = seen.digest
        return found

    def learn(self, root: str, match: Match, digests: Mapping[str, str]) -> None:
        """Keep the digests of a match's files."""
        settled = time.time_ns() - _SETTLED_NS
        prints = {}
        for item in match.items:
            info = item.info
            digest = digests.get(item.path)
            if digest is not None and info.version is not None and info.version[1] < settled:
                prints[item.path] = Fingerprint(info.size, info.mtime_ns, *info.version, digest)
        self._database.add_memo(_KIND, _key(root, match), self._encoder.encode(prints))


def _key(root: str, match: Match) -> str:
    return f"{os.path.abspath(root)}\0{match.path}"


def _same(info: FileInfo, seen: Fingerprint) -> bool:
    return info.size == seen.size and info.mtime_ns == seen.mtime_ns
