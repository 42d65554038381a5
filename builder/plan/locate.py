"""Gives an error its place in the Dockerfile: `Dockerfile:7` and the lines around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from builder.dockerfile.instructions import Range
from builder.errors import BuilderError


class Located(Protocol):
    """Anything with a range of lines."""

    @property
    def range(self) -> Range | None: ...


class Locator:
    """Knows a Dockerfile's name and text."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._text = text

    def __call__(self, what: Located) -> AbstractContextManager[None]:
        """`at` the lines of an instruction or node."""
        return self.at(what.range)

    @contextmanager
    def at(self, lines: Range | None) -> Iterator[None]:
        """Errors raised inside get this place, unless they have one in this Dockerfile already; a place of another kind
        (a path) then begins the cause."""
        try:
            yield
        except BuilderError as error:
            if lines is not None and not (error.place or "").startswith(f"{self._name}:"):
                if error.place is not None:
                    error.cause = f"{error.place}: {error.cause}"
                error.place = self.place(lines)
                from builder.dockerfile.excerpt import excerpt

                error.details = (*excerpt(self._text, lines), *error.details)
            raise

    def place(self, lines: Range) -> str:
        """`Dockerfile:LINE` of the first line."""
        return f"{self._name}:{lines.start}"
