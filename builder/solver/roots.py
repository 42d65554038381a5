"""Root file systems as stacks of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.filesystem import kinds
from builder.filesystem.tree import FileInfo

if TYPE_CHECKING:
    from builder.filesystem.tree import FileTree
    from builder.solver.environment import Environment

Layers = tuple[str, ...]
"""Diff IDs, lowest first."""


class EmptyTree:
    """The root of `FROM scratch`."""

    def lstat(self, path: str) -> FileInfo | None:
        return None if path else FileInfo(kinds.DIRECTORY, 0o755)

    def scan(self, path: str) -> list[tuple[str, FileInfo]]:
        return []

    def open(self, path: str) -> int:
        raise FileNotFoundError(path)

    def xattrs(self, path: str) -> dict[str, bytes]:
        return {}


def root_tree(environment: Environment, layers: Layers) -> FileTree:
    """The files of a stack of layers; they are fetched and unpacked now if they were not."""
    return environment.store.unpacked.tree(layers) if layers else EmptyTree()
