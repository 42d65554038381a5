"""How the commands that look into images print names and documents."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from builder.dockerfile.text import nearest
from builder.errors import StoreError
from builder.filesystem.contents import Contents, Entry
from builder.filesystem.names import printable
from builder.filesystem.resolve import resolve
from builder.filesystem.tree import Kind

FORMATS = ("table", "json")

KINDS = {
    Kind.FILE: "file",
    Kind.DIRECTORY: "directory",
    Kind.SYMLINK: "symlink",
    Kind.CHARACTER: "character device",
    Kind.BLOCK: "block device",
    Kind.FIFO: "fifo",
}
_SURROGATE = re.compile("[\ud800-\udfff]")


def print_document(value: Any) -> None:
    """Print JSON. Bytes of a name that are not UTF-8 become lone surrogates, `\\udc80` to `\\udcff`."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    print(_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def find_entry(contents: Contents, image: str, path: str, *, follow: bool = True) -> tuple[str, Entry]:
    """The file at a path of an image, and its path with no symbolic link left in it (but the last, if not `follow`).
    Raises StoreError."""
    real = resolve(contents, path, follow_last=follow)
    entry = contents.entry(real)
    if entry is not None:
        return real, entry
    through = "" if f"/{real}" == "/" + path.strip("/") else f" (it leads to /{printable(real)})"
    directory, _, name = real.rpartition("/")
    close = nearest(name, [other for other, _ in contents.scan(directory)])
    raise StoreError(
        f"there is no file {printable(path)}{through}",
        place=image,
        remedy=f"did you mean /{printable(f'{directory}/{close}'.lstrip('/'))}?" if close else None,
    )


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def clipped(text: str, width: int, *, truncate: bool) -> str:
    """One line, printable, and not wider than that if `truncate`."""
    line = printable(" ".join(text.split()))
    return line[: width - 1] + "…" if truncate and len(line) > width else line


def numbers(values: Iterable[int]) -> str:
    return ", ".join(str(value) for value in dict.fromkeys(values))
