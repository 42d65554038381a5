"""The build contexts of one build as file trees, opened when a step first looks at one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from builder.errors import ContextError

if TYPE_CHECKING:
    from builder.filesystem.tree import FileTree


class Contexts:
    """File trees by context name; `MAIN_CONTEXT` ('') is the main one. `openers` open them, each at most once."""

    def __init__(self, openers: Mapping[str, Callable[[], FileTree]]) -> None:
        self._openers = openers
        self._trees: dict[str, FileTree] = {}
        self._lock = threading.Lock()

    def tree(self, name: str) -> FileTree:
        """Raises ContextError for a context that this build does not have."""
        with self._lock:
            if name not in self._trees:
                if name not in self._openers:
                    raise ContextError(
                        "this build has no context" if not name else f"there is no build context {name!r}",
                        remedy="give a directory as the last argument of build, or --build-context NAME=PATH",
                    )
                self._trees[name] = self._openers[name]()
            return self._trees[name]
