"""The global options, for the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.api.repeat.question import Question


class Settings:
    """`root` is the store's; with `debug` an error shows its traceback."""

    def __init__(self, root: str = "", debug: bool = False, asked: Question | None = None) -> None:
        """`asked` is the command that this may be the first of several to ask for."""
        self.root = root
        self.debug = debug
        self.asked = asked
