"""How the commands that look into images print names and documents."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from builder.dockerfile.text import nearest
from builder.errors import StoreError
from builder.filesystem import kinds
from builder.filesystem.contents import Contents, Entry
from builder.filesystem.names import printable
from builder.filesystem.resolve import resolve
from builder.filesystem.tree import FileInfo

FORMATS = ("table", "json")

KINDS = {
    kinds.FILE: "file",
    kinds.DIRECTORY: "directory",
    kinds.SYMLINK: "symlink",
    kinds.CHARACTER: "character device",
    kinds.BLOCK: "block device",
    kinds.FIFO: "fifo",
}
_TYPES = {
    kinds.FILE: stat.S_IFREG,
    kinds.DIRECTORY: stat.S_IFDIR,
    kinds.SYMLINK: stat.S_IFLNK,
    kinds.CHARACTER: stat.S_IFCHR,
    kinds.BLOCK: stat.S_IFBLK,
    kinds.FIFO: stat.S_IFIFO,
}
_SURROGATE = re.compile("[\ud800-\udfff]")


class Tree(Protocol):
    """Files by their paths."""

    def lstat(self, path: str) -> FileInfo | None: ...

    def scan(self, path: str) -> Sequence[tuple[str, object]]: ...


def print_document(value: Any) -> None:
    """Print JSON. Bytes of a name that are not UTF-8 become lone surrogates, `\\udc80` to `\\udcff`."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    print(_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def find_entry(contents: Contents, image: str, path: str, *, follow: bool = True) -> tuple[str, Entry]:
    """The file at a path of an image, and its path with no symbolic link left in it (but the last, if not `follow`).
    Raises StoreError."""
    real = find_path(contents, image, path, follow=follow)
    entry = contents.entry(real)
    assert entry is not None
    return real, entry


def find_path(tree: Tree, place: str, path: str, *, follow: bool = True) -> str:
    """A path of a tree with no symbolic link left in it (but the last, if not `follow`). Raises StoreError if there is
    no such file in `place`."""
    real = resolve(tree, path, follow_last=follow)
    if tree.lstat(real) is not None:
        return real
    through = "" if f"/{real}" == "/" + path.strip("/") else f" (it leads to /{printable(real)})"
    directory, _, name = real.rpartition("/")
    parent = tree.lstat(directory)
    known = tree.scan(directory) if parent is not None and parent.kind == kinds.DIRECTORY else ()
    close = nearest(name, [other for other, _ in known])
    raise StoreError(
        f"there is no file {printable(path)}{through}",
        place=place,
        remedy=f"did you mean /{printable(f'{directory}/{close}'.lstrip('/'))}?"
        if close
        else "'builder ls' lists files",
    )


def print_long(rows: Sequence[tuple[str, FileInfo]]) -> None:
    """Print files as `ls -l` does: owners as numbers, times in UTC."""
    owners = [f"{info.uid}:{info.gid}" for _, info in rows]
    sizes = [_size(info) for _, info in rows]
    widths = max(map(len, owners), default=0), max(map(len, sizes), default=0)
    for (label, info), owner, size in zip(rows, owners, sizes, strict=True):
        link = f" -> {printable(info.link)}" if info.kind == kinds.SYMLINK else ""
        mode = stat.filemode(_TYPES[info.kind] | info.mode)
        print(f"{mode} {owner:<{widths[0]}} {size:>{widths[1]}} {shown_time(info.mtime_ns)} {printable(label)}{link}")


def _size(info: FileInfo) -> str:
    if info.kind in (kinds.CHARACTER, kinds.BLOCK):
        return f"{info.device[0]},{info.device[1]}"
    return str(len(info.link.encode("utf-8", "surrogateescape")) if info.kind == kinds.SYMLINK else info.size)


def shown_time(nanoseconds: int) -> str:
    """RFC 3339, in seconds; a time that no calendar has as seconds since 1970."""
    try:
        return datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"@{nanoseconds // 1_000_000_000}"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def clipped(text: str, width: int, *, truncate: bool) -> str:
    """One line, printable, and not wider than that if `truncate`."""
    line = printable(" ".join(text.split()))
    return line[: width - 1] + "…" if truncate and len(line) > width else line


def numbers(values: Iterable[int]) -> str:
    return ", ".join(str(value) for value in dict.fromkeys(values))
