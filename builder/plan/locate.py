"""Gives an error its place in the Dockerfile: `Dockerfile:7` and the lines around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from builder.dockerfile.excerpt import excerpt
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

    @contextmanager
    def __call__(self, what: Located) -> Iterator[None]:
        """Errors raised inside that have no place yet get that of `what`."""
        try:
            yield
        except BuilderError as error:
            if error.place is None and what.range is not None:
                error.place = self.place(what.range)
                error.details = (*excerpt(self._text, what.range), *error.details)
            raise

    def place(self, lines: Range) -> str:
        """`Dockerfile:LINE` of the first line."""
        return f"{self._name}:{lines.start}"
