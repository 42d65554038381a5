"""The global options, for the commands, and how a shell asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.api.repeat.question import Question


COMPLETE = "_BUILDER_COMPLETE"
"""The variable by which a shell asks for completions."""


class Settings:
    """`known_root` is the store's, '' where none is known; with `debug` an error shows its traceback."""

    def __init__(self, root: str = "", debug: bool = False, asked: Question | None = None) -> None:
        """`asked` is the command that this may be the first of several to ask for."""
        self.known_root = root
        self.debug = debug
        self.asked = asked

    @property
    def root(self) -> str:
        """Where the store is. Raises StoreError where that is not known: many commands need none."""
        if not self.known_root:
            from builder.places import no_root

            raise no_root()
        return self.known_root
