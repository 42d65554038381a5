"""Hearing what a command says while it says it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

MOST = 1 << 16
"""Characters. What a build of cached steps says is far shorter."""


class Echo:
    """A text stream that remembers what is written to it in `heard`, unless that is more than `most` characters. What
    is written to its `buffer` is not heard."""

    def __init__(self, stream: TextIO, most: int) -> None:
        self._stream = stream
        self._left = most
        self._heard: list[str] = []

    def write(self, text: str) -> int:
        self._left -= len(text)
        if self._left >= 0:
            self._heard.append(text)
        else:
            self._heard.clear()
        return self._stream.write(text)

    @property
    def heard(self) -> str | None:
        """All that was written, None if it was too much."""
        return "".join(self._heard) if self._left >= 0 else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def listening(most: int = MOST) -> Iterator[tuple[Echo, Echo]]:
    """Hear standard output and standard error within the block, `most` characters of each."""
    output, errors = Echo(sys.stdout, most), Echo(sys.stderr, most)
    with redirect_stdout(output), redirect_stderr(errors):
        yield output, errors
