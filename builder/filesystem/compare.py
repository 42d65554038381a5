"""How the files of two file systems differ, names and content."""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec

from builder.filesystem import kinds
from builder.filesystem.contents import Contents, Entry, difference


class FileChange(msgspec.Struct, frozen=True):
    """A path that is in one of two file systems only (the other entry is None), or differs in `aspects`: type, mode,
    owner, content, link, device, xattrs. Times do not count."""

    path: str
    before: Entry | None
    after: Entry | None
    aspects: tuple[str, ...] = ()


def compare(before: Contents, after: Contents) -> Iterator[FileChange]:
    """The changes, a directory before what is in it, names in the order of their bytes. Both contents must have been
    read with digests."""
    if aspects := difference(*_roots(before, after)):
        yield FileChange("", *_roots(before, after), tuple(aspects))
    waiting = [_children(before, after, "")]
    while waiting:
        change = next(waiting[-1], None)
        if change is None:
            waiting.pop()
            continue
        if change.before is None or change.after is None or change.aspects:
            yield change
        if _is_directory(change.before) or _is_directory(change.after):
            waiting.append(_children(before, after, change.path))


def _roots(before: Contents, after: Contents) -> tuple[Entry, Entry]:
    old, new = before.entry(""), after.entry("")
    assert old is not None
    assert new is not None
    return old, new


def _children(before: Contents, after: Contents, directory: str) -> Iterator[FileChange]:
    old, new = dict(before.scan(directory)), dict(after.scan(directory))
    prefix = f"{directory}/" if directory else ""
    for name in sorted(old.keys() | new.keys(), key=os.fsencode):
        first, second = old.get(name), new.get(name)
        aspects = tuple(difference(first, second)) if first is not None and second is not None else ()
        yield FileChange(prefix + name, first, second, aspects)


def _is_directory(entry: Entry | None) -> bool:
    return entry is not None and entry.info.kind == kinds.DIRECTORY
