"""Files that exist only in the build: here-documents, as a source of a COPY, and trees of a few files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from builder.filesystem import kinds
from builder.filesystem.tree import FileInfo
from builder.oci.digests import hex_of
from builder.plan.steps import CopyInline
from builder.solver.gather import Destination
from builder.solver.place import place
from builder.solver.select import Item, Match
from builder.solver.staging import Staging


class InlineSource:
    """A here-document."""

    def __init__(self, source: CopyInline) -> None:
        self._name = source.name
        self._data = source.data.encode("utf-8", "surrogateescape")

    def identity(self) -> Any:
        return {"inline": self._name, "sha256": hex_of(self._data)}

    content = identity

    def place(self, staging: Staging, destination: Destination) -> None:
        info = FileInfo(kinds.FILE, 0o644, 0, 0, len(self._data), destination.ownership.now_ns)
        name = self._name.strip("/").rpartition("/")[2]
        tree = MemoryTree({name: (info, self._data)})
        place(staging, tree, Match(name, name, info, (Item("", name, info),)), destination.path, destination.ownership)


class MemoryTree:
    """A directory with a few files that exist only here, or whose content lies in files of the host."""

    def __init__(self, files: Mapping[str, tuple[FileInfo, bytes | str]]) -> None:
        self._files = files

    def lstat(self, path: str) -> FileInfo | None:
        if not path:
            return FileInfo(kinds.DIRECTORY, 0o755)
        return self._files[path][0] if path in self._files else None

    def scan(self, path: str) -> list[tuple[str, FileInfo]]:
        return sorted((name, info) for name, (info, _) in self._files.items())

    def open(self, path: str) -> int:
        content = self._files[path][1]
        if isinstance(content, str):
            return os.open(content, os.O_RDONLY | os.O_CLOEXEC)
        descriptor = os.memfd_create("builder", os.MFD_CLOEXEC)
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    def xattrs(self, path: str) -> dict[str, bytes]:
        return {}
