"""Hearing what a command says while it says it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO


class Echo:
    """A text stream that remembers what is written to it in `heard`. What is written to its `buffer` is not heard."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._heard: list[str] = []

    def write(self, text: str) -> int:
        self._heard.append(text)
        return self._stream.write(text)

    @property
    def heard(self) -> str:
        return "".join(self._heard)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def listening() -> Iterator[tuple[Echo, Echo]]:
    """Hear standard output and standard error within the block."""
    output, errors = Echo(sys.stdout), Echo(sys.stderr)
    with redirect_stdout(output), redirect_stderr(errors):
        yield output, errors
